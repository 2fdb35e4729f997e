//! The pages for users describe what the code has, and nothing else.

mod clients;
mod configuration;
mod links;
mod metrics;
mod reference;
mod units;

/// Returns the text below a heading, up to the next heading of the same depth.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let depth = heading
        .split(' ')
        .next()
        .expect("a heading begins with its marks");
    let begin = format!("\n{heading}\n");
    let (_, section) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {heading:?}"));
    let end = format!("\n{depth} ");
    section.split(end.as_str()).next().unwrap_or(section)
}

/// Returns the cells of each row of the tables in a section, without their headings.
fn rows(section: &str) -> Vec<Vec<&str>> {
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let line = line.trim_start_matches('|').trim_end_matches('|');
            line.split(" | ").map(str::trim).collect()
        })
        .collect()
}
