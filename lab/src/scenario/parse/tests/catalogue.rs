//! Files and the catalogue they make: names, controls, and those that the lab brings along.

use super::*;

#[test]
fn scenario_with_a_fault_needs_a_control() {
    let text = "name = \"x\"\nclaim = \"It works.\"\n[[rule]]\naction = \"drop\"\n";
    let refusal = Scenario::parse("x.toml", text).unwrap_err().to_string();
    assert!(
        refusal.starts_with("x.toml:1:8: a scenario with a fault needs a `control`"),
        "{refusal}"
    );
}

#[test]
fn name_must_be_that_of_the_file() {
    let refusal = Scenario::parse("scenarios/y.toml", HEAD)
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("write name = \"y\" or rename the file"),
        "{refusal}"
    );
}

#[test]
fn broken_toml_is_one_line_with_its_place() {
    let refusal = refusal("claim =");
    assert!(refusal.starts_with("scenarios/x.toml:4:"), "{refusal}");
    assert!(!refusal.contains('\n'), "{refusal}");
}

#[test]
fn control_must_be_a_scenario() {
    let clean = "name = \"clean\"\nclaim = \"It works.\"\n";
    let files = |control: &str| {
        [
            ("a/clean.toml", clean.to_owned()),
            ("a/x.toml", HEAD.replace("\"clean\"", control)),
        ]
    };
    let catalogue = Catalogue::parse(files("\"clean\"")).unwrap();
    assert_eq!(catalogue.iter().count(), 2);
    assert_eq!(catalogue.nearest("claen"), Some("clean"));
    let refusal = Catalogue::parse(files("\"cleen\""))
        .unwrap_err()
        .to_string();
    assert_eq!(
        refusal,
        "a/x.toml:3:11: control `cleen` is not the name of a scenario, did you mean `clean`?"
    );
    let refusal = Catalogue::parse(files("\"x\"")).unwrap_err().to_string();
    assert!(
        refusal.starts_with("a/x.toml:3:11: the controls of `x` form a circle"),
        "{refusal}"
    );
}

#[test]
fn two_scenarios_of_one_name_are_refused() {
    let clean = "name = \"clean\"\nclaim = \"It works.\"\n";
    let refusal = Catalogue::parse([("a/clean.toml", clean), ("b/clean.toml", clean)])
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("a second scenario is named `clean`"),
        "{refusal}"
    );
}

#[test]
fn every_scenario_of_the_lab_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let catalogue = Catalogue::parse(files)
        .map_err(|error| error.to_string())
        .unwrap();
    assert!(catalogue.iter().count() >= 24);
}

#[test]
fn example_of_the_guide_is_valid() {
    let guide = include_str!("../../../../scenarios/README.md");
    let example = guide
        .split("```")
        .nth(1)
        .unwrap()
        .trim_start_matches("toml");
    let scenario = Scenario::parse("example.toml", example).unwrap();
    assert_eq!(scenario.rules[0].select.datagram, Some(Position::Last));
}
