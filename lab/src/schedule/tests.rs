//! Plans: which runs a filter means, and that controls come with them.

use super::*;

const FILES: [(&str, &str); 2] = [
    (
        "clean.toml",
        r#"
name = "clean"
claim = "Nothing goes wrong."

[[play]]
server = "ours"
client = "ours"
"#,
    ),
    (
        "lossy.toml",
        r#"
name = "lossy"
claim = "Something gets lost."
control = "clean"

[[play]]
server = "ours"
client = "ours"

[[play]]
server = "openssl"
server_args = ["-listen"]
client = "ours"

[link.both]
loss = "5%"
"#,
    ),
];

fn slugs(filter: &Filter) -> Vec<String> {
    let catalogue = Catalogue::parse(FILES).expect("the files are good");
    let plan = plan(&catalogue, filter).expect("the filter leaves something");
    plan.iter().map(|planned| planned.job.slug()).collect()
}

#[test]
fn control_is_planned_with_the_endpoints_of_the_scenario() {
    let filter = Filter {
        names: vec!["lossy".to_owned()],
        family: Some(Family::Ipv4),
        ..Filter::default()
    };
    assert_eq!(
        slugs(&filter),
        [
            "clean.ipv4.ours.ours",
            "lossy.ipv4.ours.ours",
            "clean.ipv4.openssl--listen.ours",
            "lossy.ipv4.openssl--listen.ours",
        ]
    );
}

#[test]
fn everything_is_planned_once() {
    let mut all = slugs(&Filter::default());
    assert_eq!(all.len(), 8, "{all:?}");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "{all:?}");
}

#[test]
fn server_is_named_with_or_without_its_arguments() {
    for server in ["openssl", "openssl -listen"] {
        let filter = Filter {
            names: vec!["lossy".to_owned()],
            server: Some(server.to_owned()),
            ..Filter::default()
        };
        assert_eq!(slugs(&filter).len(), 4, "{server}");
    }
}

#[test]
fn star_stands_for_any_characters() {
    assert!(matches("handshake-*", "handshake-drop-flight4"));
    assert!(matches("*flight*", "handshake-drop-flight4"));
    assert!(!matches("handshake", "handshake-drop-flight4"));
    assert!(!matches("*flight5", "handshake-drop-flight4"));
}

#[test]
fn unknown_name_is_refused_with_the_nearest() {
    let catalogue = Catalogue::parse(FILES).expect("the files are good");
    let filter = Filter {
        names: vec!["losy".to_owned()],
        ..Filter::default()
    };
    let error = plan(&catalogue, &filter).expect_err("there is no such scenario");
    assert!(
        error.to_string().contains("did you mean `lossy`?"),
        "{error}"
    );
}

#[test]
fn filter_is_told_as_a_shell_takes_it() {
    let filter = Filter {
        names: vec!["icmp-*".to_owned(), "clean".to_owned()],
        family: Some(Family::Ipv6),
        server: Some("openssl -listen".to_owned()),
        ..Filter::default()
    };
    assert_eq!(
        filter.arguments(),
        " 'icmp-*' clean --family ipv6 --server 'openssl -listen'"
    );
    assert_eq!(Filter::default().arguments(), "");
}

/// Plays the lossy scenario and its control; `fails` says of each run of the control whether it does.
fn with_control(fails: impl Fn(u32) -> bool + Sync) -> (Vec<String>, Vec<Finished>) {
    let catalogue = Catalogue::parse(FILES).expect("the files are good");
    let filter = Filter {
        names: vec!["lossy".to_owned()],
        family: Some(Family::Ipv4),
        server: Some("ours".to_owned()),
        ..Filter::default()
    };
    let plan = plan(&catalogue, &filter).expect("there is such a run");
    let tries = std::sync::atomic::AtomicU32::new(0);
    let run = |job: &Job<'_>| {
        let is_control = job.scenario.control.is_none();
        let broken = is_control && fails(tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        Finished::untried(match broken {
            true => Verdict::Fail("too late".to_owned()),
            false => Verdict::Pass,
        })
    };
    let finished = run_all(&run, &plan, 1, &|_| ());
    let names = plan.iter().map(|it| it.job.scenario.name.clone());
    (names.collect(), finished)
}

#[test]
fn control_that_passes_when_tried_again_stays_red_but_leaves_the_others_be() {
    let (names, finished) = with_control(|nth| nth == 0);
    assert_eq!(names, ["clean", "lossy"]);
    assert_eq!(finished[0].verdict, Verdict::Fail("too late".to_owned()));
    assert!(finished[0].remarks[0].contains("passed when tried again"));
    assert_eq!(finished[1].verdict, Verdict::Pass);
}

#[test]
fn control_that_fails_twice_leaves_nothing_to_learn() {
    let (_, finished) = with_control(|_| true);
    assert!(
        finished[0].remarks[0].contains("either"),
        "{:?}",
        finished[0]
    );
    assert!(
        matches!(&finished[1].verdict, Verdict::Broken(why) if why.contains("did not pass")),
        "{:?}",
        finished[1]
    );
}
