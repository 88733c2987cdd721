//! Sound ends agree with the model; each planted defect is noticed, by the silence probe or by the
//! distribution.

use super::*;

/// Small handshakes: nothing here depends on certificates.
fn question(defect: Option<Defect>, handshakes: u32) -> Question {
    Question {
        shape: Shape::Psk,
        defect,
        answers_duplicates: false,
        handshakes,
        alpha: 0.001,
        seed: 0x7c1e,
        workers: 2,
    }
}

fn percent(loss: u32) -> Chance {
    Chance::per_million(loss * 10_000).expect("below a million")
}

fn wrong_flights(defect: Option<Defect>) -> Vec<u8> {
    let silences = question(defect, 0).silences().unwrap();
    let wrong = silences.iter().filter(|it| !it.right);
    wrong.map(|it| it.flight).collect()
}

#[test]
fn every_flight_of_a_sound_end_is_repeated_as_the_rfc_says() {
    let silences = question(None, 0).silences().unwrap();
    let flights: Vec<u8> = silences.iter().map(|it| it.flight).collect();
    assert_eq!(flights, [1, 2, 3, 4, 5, 6]);
    for it in &silences {
        assert!(it.right, "{it:?}");
    }
    let schedule = [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0];
    assert_eq!(silences[3].times, schedule);
    assert_eq!(silences[5].times, [0.0], "the last flight has no timer");
}

#[test]
fn silence_probe_sees_every_wrong_timer() {
    assert_eq!(wrong_flights(Some(Defect::Initial400Ms)), [1, 3, 4, 5]);
    assert_eq!(wrong_flights(Some(Defect::NoBackoff)), [1, 3, 4, 5]);
    assert_eq!(wrong_flights(Some(Defect::Gaps13612)), [1, 3, 4, 5]);
    assert_eq!(wrong_flights(Some(Defect::Cap32s)), [1, 3, 4, 5]);
    assert_eq!(wrong_flights(Some(Defect::TimerCarriedOver)), [3, 4, 5]);
    assert_eq!(wrong_flights(Some(Defect::HelloVerifyTimer)), [2]);
    assert_eq!(wrong_flights(Some(Defect::LastFlightTimer)), [6]);
    assert_eq!(wrong_flights(Some(Defect::DeafServer)), [4]);
    assert_eq!(wrong_flights(Some(Defect::ServerWithoutTimer)), [4]);
}

#[test]
fn sound_ends_agree_with_the_model() {
    let compared = question(None, 800).compare(percent(20)).unwrap();
    assert!(compared.agrees, "{compared:#?}");
}

#[test]
fn flights_of_several_datagrams_agree_with_the_model() {
    let question = Question {
        shape: Shape::Full,
        ..question(None, 600)
    };
    let compared = question.compare(percent(30)).unwrap();
    assert!(compared.agrees, "{compared:#?}");
}

#[test]
fn ends_that_answer_duplicates_agree_with_the_model_that_does() {
    let mut question = question(Some(Defect::AnswersDuplicates), 600);
    question.answers_duplicates = true;
    let compared = question.compare(percent(30)).unwrap();
    assert!(compared.agrees, "{compared:#?}");
}

#[test]
fn distribution_tells_gross_defects_in_a_few_hundred_handshakes() {
    for defect in [
        Defect::LastFlightNeverResent,
        Defect::Initial400Ms,
        Defect::DeafServer,
    ] {
        let compared = question(Some(defect), 300).compare(percent(30)).unwrap();
        assert!(!compared.agrees, "{defect}: {compared:#?}");
    }
}

#[test]
fn same_seed_gives_the_same_distribution_whoever_plays() {
    let one = question(None, 100);
    let other = Question { workers: 1, ..one };
    let [one, other] = [one, other].map(|it| it.compare(percent(20)).unwrap());
    assert_eq!(one.distance.to_bits(), other.distance.to_bits());
}
