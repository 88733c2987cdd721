//! Links and what changes on the way: what they may say, and what not.

use super::*;

#[test]
fn link_both_holds_in_both_directions() {
    let scenario =
        parse("[link.both]\ndelay = \"20ms\"\njitter = \"5ms\"\nloss = \"5%\"\n").unwrap();
    assert_eq!(scenario.to_server, scenario.to_client);
    assert_eq!(scenario.to_server.delay, Duration::from_millis(20));
}

#[test]
fn links_have_an_mtu_that_some_link_could_have() {
    let scenario = parse("[link.to_client]\nmtu = 576\ntoo_big = true\n").unwrap();
    let mtu = Mtu {
        bytes: 576,
        announced: true,
    };
    assert_eq!(
        (scenario.to_server.mtu, scenario.to_client.mtu),
        (None, Some(mtu))
    );
    let nothing = parse("[link.both]\ntoo_big = true\n").unwrap_err();
    assert!(
        nothing.contains("`too_big` announces the link's `mtu`"),
        "{nothing}"
    );
    let narrow = parse("[link.both]\nmtu = 67\n").unwrap_err();
    assert!(narrow.contains("no link has an `mtu` below 68"), "{narrow}");
}

#[test]
fn links_lose_in_bursts_and_have_a_rate_in_the_words_of_tc() {
    let scenario = parse(
        "[link.to_server]\ngemodel = { p = \"1%\", r = \"30%\", 1-h = \"80%\", 1-k = \"0.5%\" }\n\
         [link.to_client]\ngemodel = { p = \"10%\" }\nrate = \"64kbit\"\nlimit = 20\n",
    )
    .unwrap();
    let model = scenario.to_server.gemodel.unwrap();
    let words = |model: GeModel| {
        [model.p, model.r, model.loss_in_bad, model.loss_in_good].map(|chance| chance.to_string())
    };
    assert_eq!(words(model), ["1%", "30%", "80%", "0.5%"]);
    let usual = scenario.to_client.gemodel.unwrap();
    assert_eq!(
        words(usual),
        ["10%", "90%", "100%", "0%"],
        "as tc-netem has it"
    );
    assert_eq!(scenario.to_client.rate.unwrap().0.get(), 64_000);
    assert_eq!(scenario.to_client.limit.unwrap().get(), 20);
}

#[test]
fn impossible_links_and_changes_are_refused() {
    let cases = [
        (
            "link.both = { loss = \"1%\", gemodel = { p = \"1%\" } }",
            "`loss` and `gemodel` are two models of loss",
        ),
        (
            "link.both = { gemodel = { r = \"1%\" } }",
            "the key `p` is missing",
        ),
        (
            "link.both = { gemodel = { p = \"1%\", \"1-j\" = \"1%\" } }",
            "unknown key `1-j`, did you mean `1-h`?",
        ),
        (
            "link.both = { gemodel = { p = \"1%\", 1-h = \"0%\" } }",
            "never loses anything",
        ),
        (
            "link.both = { rate = \"64kbps\" }",
            "`64kbps` is no rate; write",
        ),
        (
            "link.both = { rate = \"0kbit\" }",
            "`0kbit` is no rate; write",
        ),
        ("link.both = { limit = 3 }", "set a `rate` or a `delay`"),
        ("link.both = { ratte = \"1kbit\" }", "did you mean `rate`?"),
        (
            "blackhole = [{ lasts = \"2s\" }]",
            "a blackhole needs one trigger",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"0s\" }]",
            "swallows nothing",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"2s\", repeat = 2 }]",
            "need a `spacing`",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"2s\", repeat = 2, spacing = \"2s\" }]",
            "need a `spacing`",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"2s\", spacing = \"3s\" }]",
            "write repeat = 2 or more",
        ),
        (
            "blackhole = [{ when = \"established\", last = \"2s\" }]",
            "unknown key `last`, did you mean `lasts`?",
        ),
        (
            "rebind = [{ when = \"established\" }]",
            "the key `what` is missing",
        ),
        (
            "rebind = [{ when = \"established\", what = \"prt\" }]",
            "unknown value `prt`, did you mean `port`?",
        ),
        (
            "rebind = [{ what = \"port\" }]",
            "a rebind needs one trigger",
        ),
        ("expect = { outcome = \"cut-off\" }", "write a [[rebind]]"),
    ];
    for (text, expected) in cases {
        let refusal = refusal(text);
        assert!(refusal.starts_with("scenarios/x.toml:4:"), "{refusal}");
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}
