//! Replays the inputs that coverage-guided fuzzing has kept: each reaches code that no other does. `cargo xtask fuzz
//! --guided` starts with them.

use knockgate_tests::oracle::guided;

#[test]
fn frames_are_read_as_the_model_reads_them() {
    let corpus = include_str!("../../knock-common/fuzz/corpus/read.txt");
    replay(corpus, guided::read);
}

#[test]
fn streams_are_judged_as_the_model_judges_them() {
    let corpus = include_str!("../../knock-common/fuzz/corpus/decide.txt");
    replay(corpus, guided::decide);
}

#[test]
fn authenticated_knocks_are_judged_as_the_model_judges_them() {
    let corpus = include_str!("../../knock-common/fuzz/corpus/knock.txt");
    replay(corpus, guided::knock);
}

fn replay(corpus: &str, difference: fn(&[u8]) -> Option<String>) {
    let inputs = corpus.lines().filter(|line| !line.starts_with('#'));
    let mut tried = 0;
    for line in inputs {
        let digit = |at: usize| {
            let pair = line.get(at..at + 2).expect("two digits a byte");
            u8::from_str_radix(pair, 16).expect("hexadecimal digits")
        };
        let input: Vec<u8> = (0..line.len()).step_by(2).map(digit).collect();
        if let Some(found) = difference(&input) {
            panic!("{line}: {found}");
        }
        tried += 1;
    }
    assert!(tried >= 50, "only {tried} inputs");
}
