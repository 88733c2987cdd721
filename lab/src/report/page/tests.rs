//! Pages of made-up reports.

use std::sync::Arc;
use std::time::Duration;

use super::ladder::Ladder;
use super::matrix::Matrix;
use super::*;
use crate::observe::sketch::{Resent, Sketch, Step, StepKind};
use crate::oracle::silence::Silence;
use crate::packet::Direction;
use crate::record::Place;
use crate::report::tests::{ALL, report, row};
use crate::report::{Row, Status};
use crate::role::Role;
use crate::rules::Exchanged;
use crate::wire::{Cause, Fate};

fn page(folder: &Path, runs: Vec<Row>) -> String {
    let mut text = Vec::new();
    write(&mut text, folder, &report(runs), None).expect("memory takes everything");
    String::from_utf8(text).expect("it is text")
}

fn step(
    at: u64,
    direction: Direction,
    flight: u8,
    what: &str,
    fate: Fate,
    arrivals: &[u64],
) -> Step {
    Step {
        at: Duration::from_millis(at),
        direction,
        flow: 0,
        kind: StepKind::Sent {
            place: Some(Place {
                flight,
                transmission: 1,
                datagram: 1,
                last: true,
                resumed: false,
                handshake: 1,
            }),
            what: what.to_owned(),
            length: 100,
            rebound: 0,
            cause: if fate == Fate::Delivered {
                Cause::None
            } else {
                Cause::Rule(0)
            },
            fate,
        },
        arrivals: arrivals
            .iter()
            .map(|at| Duration::from_millis(*at))
            .collect(),
        count: 1,
    }
}

use Direction::{ToClient, ToServer};

#[test]
fn ladder_names_the_lost_datagram_and_who_lost_it() {
    let ladder = Ladder::of(&Sketch {
        first: vec![
            step(0, ToServer, 1, "ClientHello", Fate::Delivered, &[0]),
            step(1, ToClient, 2, "HelloVerifyRequest", Fate::Dropped, &[]),
        ],
        clients: 1,
        ..Sketch::default()
    });
    let [hello, lost] = &ladder.rows[..] else {
        panic!("{ladder:?}");
    };
    assert_eq!((hello.class, hello.arrows.len()), ("plain", 1));
    assert_eq!((lost.class, lost.arrows.len()), ("lost", 0));
    assert_eq!(lost.label, "HelloVerifyRequest");
    assert_eq!(lost.fate, "100 B, lost by rule 1");
    assert_eq!(lost.flight, "2");
}

#[test]
fn overtaken_datagram_arrives_below_the_one_that_passed_it() {
    let held = Fate::Held { passes: 1 };
    let ladder = Ladder::of(&Sketch {
        first: vec![
            step(0, ToClient, 4, "Certificate", held, &[60]),
            step(10, ToClient, 4, "ServerHelloDone", Fate::Delivered, &[10]),
        ],
        clients: 1,
        ..Sketch::default()
    });
    let end = |index: usize| -> i32 {
        let arrow = &ladder.rows[index].arrows[0];
        let last = arrow.rsplit(' ').next().expect("an ordinate");
        last.parse().expect("a number")
    };
    assert!(end(0) > end(1), "{ladder:?}");
    assert!(ladder.rows[0].fate.contains("held"), "{ladder:?}");
    assert_eq!(ladder.rows[1].flight, "", "the same flight is named once");
}

#[test]
fn address_that_a_nat_gave_is_told() {
    let mut data = step(0, ToServer, 1, "application data", Fate::Delivered, &[0]);
    if let StepKind::Sent { rebound, place, .. } = &mut data.kind {
        (*rebound, *place) = (1, None);
    }
    let ladder = Ladder::of(&Sketch {
        first: vec![data],
        clients: 1,
        ..Sketch::default()
    });
    assert_eq!(ladder.rows[0].fate, "100 B, 2nd NAT address");
}

#[test]
fn silence_between_datagrams_is_told() {
    let ladder = Ladder::of(&Sketch {
        first: vec![
            step(0, ToServer, 1, "ClientHello", Fate::Dropped, &[]),
            step(1003, ToServer, 1, "ClientHello", Fate::Delivered, &[1003]),
        ],
        clients: 1,
        ..Sketch::default()
    });
    let words: Vec<&str> = ladder.gaps.iter().map(|gap| gap.1.as_str()).collect();
    assert_eq!(words, ["1.00 s later"]);
}

#[test]
fn words_of_strangers_stay_words() {
    const EVIL: &str = "</pre></title><script>alert('x')</script><b a=\"1\">&";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut run = row(Status::Fail);
    let logs = folder.path().join(&run.id);
    std::fs::create_dir(&logs).expect("the folder is ours");
    std::fs::write(logs.join("server.log"), EVIL).expect("the folder is ours");
    run.why = EVIL.to_owned();
    run.claim = EVIL.to_owned();
    run.known = Some(EVIL.to_owned());
    run.server = EVIL.to_owned();
    run.replay = EVIL.to_owned();
    run.sketch = Some(Arc::new(Sketch {
        first: vec![step(0, ToServer, 1, EVIL, Fate::Delivered, &[0])],
        clients: 1,
        ..Sketch::default()
    }));
    let page = page(folder.path(), vec![run]);
    // One script: the page's own.
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("<b a="), "{page}");
    assert!(
        page.matches("alert(").count() > 6,
        "it is shown all the same"
    );
}

#[test]
fn every_verdict_has_its_badge_and_its_word() {
    let runs = (1..).zip(ALL).map(|(number, status)| {
        let mut run = row(status);
        run.scenario = format!("scenario-{number}");
        run
    });
    let page = page(Path::new("nowhere"), runs.collect());
    for status in ALL {
        let word = format!(">{}</span>", status.word());
        assert!(page.contains(&word), "{word}");
    }
    assert_eq!(page.matches("<a class=\"badge").count(), ALL.len());
}

#[test]
fn runs_of_the_same_share_a_badge_that_leads_to_the_worst() {
    let runs = [Status::Pass, Status::Fail, Status::Pass];
    let runs = (1..).zip(runs).map(|(number, status)| {
        let mut run = row(status);
        run.id = format!("run-{number}");
        run
    });
    let page = page(Path::new("nowhere"), runs.collect());
    let badges: Vec<&str> = page.split("<a class=\"badge").skip(1).collect();
    let [badge] = badges[..] else {
        panic!("{} badges", badges.len());
    };
    assert!(badge.starts_with(" fail\" href=\"#run-2\""), "{badge:.80}");
    assert!(badge.contains(">✗4 2/3</a>"), "{badge:.200}");
}

#[test]
fn many_pairs_are_a_square_of_servers_and_clients_with_letters_for_scenarios() {
    let names = ["ours", "openssl", "gnutls", "mbedtls"];
    let mut runs = Vec::new();
    for (server, client) in names
        .iter()
        .flat_map(|it| names.iter().map(move |of| (it, of)))
    {
        for scenario in ["clean", "loss-10"] {
            let mut run = row(Status::Pass);
            run.id = format!("{scenario}.{server}.{client}");
            (run.server, run.client) = ((*server).to_owned(), (*client).to_owned());
            run.scenario = scenario.to_owned();
            runs.push(run);
        }
    }
    let matrix = Matrix::of(&runs);
    assert_eq!((matrix.lines.len(), matrix.columns.len()), (4, 4));
    let words: Vec<&str> = matrix.lines[0].cells[0]
        .badges
        .iter()
        .map(|badge| badge.words.as_str())
        .collect();
    assert_eq!(words, ["A", "B"]);
    assert_eq!(matrix.letters[1].1, "loss-10");
    assert!(page(Path::new("nowhere"), runs).contains("<dt>B loss-10"));
}

#[test]
fn page_of_three_hundred_long_runs_stays_small_and_says_what_it_leaves_out() {
    let what = "ServerHello Certificate ServerKeyExchange CertificateRequest ServerHelloDone";
    let steps = |count| {
        (0..count)
            .map(|at| step(at, ToClient, 4, what, Fate::Delivered, &[at + 1]))
            .collect()
    };
    let sketch = Arc::new(Sketch {
        first: steps(50),
        left_out: 10_000,
        last: steps(20),
        clients: 1,
        ..Sketch::default()
    });
    let runs = (0..300).map(|number| {
        let mut run = row(if number == 299 {
            Status::Fail
        } else {
            Status::Pass
        });
        run.id = format!("run-{number}");
        run.sketch = Some(Arc::clone(&sketch));
        run
    });
    let page = page(Path::new("nowhere"), runs.collect());
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert!(page.contains("10000 more, left out here"));
    let missing = page.matches("The ladder is left out").count();
    assert!(0 < missing && missing < 300, "{missing}");
    let red = page.split("<details").last().expect("there are runs");
    assert!(red.contains("<svg"), "what is red has its ladder");
}

#[test]
fn timers_stand_at_their_times_by_implementation_and_flight() {
    let mut run = row(Status::Pass);
    run.server = "openssl -listen".to_owned();
    let resent = |after, by_timer| Resent {
        sender: Role::Server,
        flight: 4,
        after: Duration::from_millis(after),
        by_timer,
    };
    run.sketch = Some(Arc::new(Sketch {
        resent: vec![resent(1001, true), resent(1003, true), resent(3000, false)],
        ..Sketch::default()
    }));
    let silence = Silence {
        flight: 1,
        times: vec![0.0, 1.0],
        expected: vec![0.0, 1.0],
        datagrams: vec![1, 1],
        right: true,
    };
    let timers = Timers::of(&[run], &[silence]).expect("there are repetitions");
    let names: Vec<&str> = timers.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "openssl server, flight 4",
            "ours client, simulated, flight 1"
        ]
    );
    let dots: Vec<_> = timers.rows[0]
        .dots
        .iter()
        .map(|dot| (dot.title.as_str(), dot.full))
        .collect();
    assert_eq!(dots, [("1.00 s, 2 times", true), ("3.00 s, once", false)]);
    assert_eq!(timers.rows[1].dots[0].x, timers.ticks[1].0);
}

#[test]
fn amplification_is_the_worst_run_of_each_server_with_and_without_cookie() {
    let run = |server: &str, received, sent, cookie| {
        let mut run = row(Status::Pass);
        run.server = server.to_owned();
        run.sketch = Some(Arc::new(Sketch {
            unverified: Some((Exchanged { received, sent }, cookie)),
            ..Sketch::default()
        }));
        run
    };
    let bars = Amplification::of(&[
        run("ours", 200, 60, true),
        run("ours --link-mtu 400", 200, 100, true),
        run("openssl", 200, 1400, false),
    ])
    .expect("servers were heard");
    let told: Vec<_> = bars
        .bars
        .iter()
        .map(|bar| (bar.name.as_str(), bar.over, bar.words.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("openssl, no cookie", true, "7.00 (1400 of 200 B), clean"),
            ("ours, cookie", false, "0.50 (100 of 200 B), clean"),
        ]
    );
}
