//! Adapter files: what is taken, and how what is not is refused.

use super::*;

const GOOD: &str = r#"name = "x"
about = "A made-up program."
install = "build it"

[server]
command = ["x-server", "-p", "{port}", "{{{cert}}}"]
data = "echo"
"#;

fn parse(text: &str) -> Result<Adapter, String> {
    parse::adapter("adapters/x.toml".as_ref(), text, None).map_err(|refusal| refusal.to_string())
}

fn refusal(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    parse(&GOOD.replace(old, new)).expect_err("it is wrong")
}

#[test]
fn placeholders_are_filled_and_doubled_braces_are_braces() {
    let adapter = parse(GOOD).expect("it is good");
    let server = adapter.server.expect("it has a server");
    let words: Vec<_> = server
        .side
        .command
        .iter()
        .map(|word| {
            word.fill(&|slot| match slot {
                Slot::Port => "5684".into(),
                Slot::Cert => "/pki/server.pem".into(),
                _ => panic!("{slot:?} does not stand there"),
            })
        })
        .collect();
    assert_eq!(words, ["x-server", "-p", "5684", "{/pki/server.pem}"]);
    assert_eq!((server.ready, server.side.data), (Ready::Bound, Data::Echo));
}

#[test]
fn mistakes_in_an_adapter_are_named_with_their_place_and_the_nearest_word() {
    for (old, new, wanted) in [
        (
            "{port}",
            "{prot}",
            "adapters/x.toml:6:31: no placeholder is named `prot`, did you mean `port`?",
        ),
        (
            "{port}",
            "{port",
            "adapters/x.toml:6:31: a brace without its partner",
        ),
        (
            "{port}",
            "port}",
            "adapters/x.toml:6:35: a brace without its partner",
        ),
        (
            "install",
            "instal",
            "adapters/x.toml:3:1: unknown key `instal`, did you mean `install`?",
        ),
        (
            "command = [",
            "command = []\nmtu = [",
            "adapters/x.toml:6:11: the command is empty",
        ),
        (
            "\"x-server\"",
            "\"{role}\"",
            "adapters/x.toml:6:11: the command begins with the program's name",
        ),
        (
            "\"echo\"",
            "\"ehco\"",
            "adapters/x.toml:7:8: no protocol is named `ehco`, did you mean `echo`?",
        ),
        (
            "name = \"x\"",
            "name = \"y\"",
            "adapters/x.toml:1:8: an adapter is named as its file",
        ),
        (
            "data = \"echo\"",
            "data = \"echo\"\nready = { stdin = \"ok\" }",
            "adapters/x.toml:8:11: unknown key `stdin`",
        ),
        (
            "data = \"echo\"",
            "data = \"echo\"\nready = {}",
            "adapters/x.toml:8:9: write ready =",
        ),
    ] {
        let refusal = refusal(old, new);
        assert!(refusal.starts_with(wanted), "{new}: {refusal}");
    }
}

#[test]
fn adapter_without_a_side_and_client_without_an_answer_are_refused() {
    let nobody = GOOD.split("[server]").next().expect("text before it");
    let refusal = parse(nobody).expect_err("nobody to start");
    assert!(refusal.contains("add a [server]"), "{refusal}");

    let client = GOOD
        .replace("[server]", "[client]")
        .replace("\"echo\"", "\"coap\"");
    let refusal = parse(&client).expect_err("no answer");
    assert!(refusal.contains("needs an `answer`"), "{refusal}");
    let good = parse(&client.replace("data =", "answer = \"2.05\"\ndata =")).expect("it is good");
    let data = Data::Protocol {
        name: "coap".to_owned(),
        answer: Some("2.05".to_owned()),
    };
    assert_eq!(good.client.expect("it has a client").side.data, data);
}

#[test]
fn every_adapter_of_the_lab_is_valid_and_an_own_one_replaces_its_namesake() {
    let mut adapters = Adapters::built_in();
    assert!(adapters.get(OURS).is_some_and(|ours| ours.required));
    let own = GOOD.replace("\"x\"", "\"openssl\"");
    adapters
        .add("mine/openssl.toml".as_ref(), &own)
        .expect("it is good");
    let openssl = adapters.get("openssl").expect("it was added");
    assert_eq!(openssl.about, "A made-up program.");
    assert_eq!(openssl.folder.as_deref(), Some("mine".as_ref()));
}
