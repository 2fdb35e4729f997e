//! JSON documents as a script reads them, compared with docs/reference.md.

use knockgate_tests::scenario::Scenario;
use serde_json::Value;

/// Runs a command, which must print one document and nothing else. Returns the document.
#[track_caller]
pub fn document(scenario: &Scenario, command: &str) -> Value {
    let document = scenario.knockgate(command).exits(0).json();
    let name = command.split(' ').next().expect("a command has a name");
    assert_described(name, &document);
    document
}

/// Asserts that every key of a document has a row under its command in docs/reference.md.
#[track_caller]
pub fn assert_described(command: &str, document: &Value) {
    let section = described(command);
    let lists = document.as_object().expect("a document is an object");
    for (list, rows) in lists {
        let Some(rows) = rows.as_array() else {
            let key = format!("\n| `{list}` |");
            assert!(section.contains(&key), "no {list} of {command}");
            continue;
        };
        let keys = rows.iter().filter_map(Value::as_object);
        for key in keys.flat_map(|row| row.keys()) {
            let key = format!("\n| `{list}[].{key}` |");
            assert!(section.contains(&key), "no {key:?} of {command}");
        }
    }
}

/// Returns whether a line is a heading: only headings are in capitals.
pub fn is_heading(line: &str) -> bool {
    line.bytes().any(|b| b.is_ascii_uppercase())
        && line.bytes().all(|b| b == b' ' || b.is_ascii_uppercase())
}

/// Returns the section of docs/reference.md about a command's document.
pub fn described(command: &str) -> &'static str {
    const PAGE: &str = include_str!("../../../docs/reference.md");
    let (_, section) = PAGE
        .split_once(&format!("\n### `{command}`\n"))
        .unwrap_or_else(|| panic!("no {command} on the page"));
    section.split("\n##").next().unwrap_or(section)
}

/// Returns the rows of a list. Asserts that each has these keys.
#[track_caller]
pub fn rows<'a>(list: &'a Value, keys: &[&str]) -> Vec<&'a Value> {
    let rows: Vec<&Value> = list
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {list}"))
        .iter()
        .collect();
    for row in &rows {
        for key in keys {
            assert!(row.get(key).is_some(), "no {key:?} in {row}");
        }
    }
    rows
}

/// Returns the first row whose `key` is `value`.
#[track_caller]
pub fn find<'a>(rows: &[&'a Value], key: &str, value: &str) -> &'a Value {
    rows.iter()
        .find(|row| row[key] == value)
        .unwrap_or_else(|| panic!("no row with {key} = {value:?} in {rows:#?}"))
}

#[track_caller]
pub fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
}

#[track_caller]
pub fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("not a whole number: {value}"))
}
