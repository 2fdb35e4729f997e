//! Draws pictures of stored figures.

mod bars;
mod curves;
mod svg;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A function that draws one part of the figures.
type Draw = fn(&Value, &str) -> Option<String>;

/// The parts that are drawn, and their files.
const PICTURES: [(&str, &str, &str, Draw); 4] = [
    (
        "flood",
        "flood.svg",
        "Real knocks under a flood of forged ones",
        curves::draw,
    ),
    (
        "packet",
        "per-packet.svg",
        "What a packet costs in the kernel program alone, ns of CPU",
        bars::draw,
    ),
    (
        "live_native",
        "live-native.svg",
        "What a packet costs on a wire, sending and host included, ns of CPU",
        bars::draw,
    ),
    (
        "peers",
        "peers.svg",
        "The same beside others, ns of CPU",
        bars::draw,
    ),
];

/// Draws the figures in a file into a folder. Returns the names of the pictures.
pub fn draw(figures: &Path, folder: &Path) -> Result<Vec<&'static str>> {
    let text = fs::read_to_string(figures)
        .with_context(|| format!("cannot read {}", figures.display()))?;
    let document: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} holds no figures", figures.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut drawn = Vec::new();
    for (file, picture) in pictures(&document) {
        let path = folder.join(file);
        fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        drawn.push(file);
    }
    ensure!(
        !drawn.is_empty(),
        "{} holds nothing that could be drawn",
        figures.display()
    );
    Ok(drawn)
}

fn pictures(document: &Value) -> Vec<(&'static str, String)> {
    let none = Vec::new();
    let parts = document["parts"].as_array().unwrap_or(&none);
    PICTURES
        .iter()
        .filter_map(|(id, file, title, draw)| {
            let part = parts.iter().find(|part| part["id"] == *id)?;
            Some((*file, draw(part, title)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::figures::{Part, Row, over};

    #[test]
    fn what_was_measured_is_drawn_and_nothing_else() {
        let part = |id, rows| Part {
            id,
            title: "",
            unit: "",
            notes: Vec::new(),
            rows,
        };
        let flood = part(
            "flood",
            vec![
                Row::new("a", vec![100.0], Vec::new()).on_curve("ours", 0.0),
                Row::new("b", vec![99.0], Vec::new()).on_curve("ours", 1e6),
            ],
        );
        let packet = part(
            "packet",
            vec![
                Row::new("floor", vec![20.0], Vec::new()),
                Row::new("row", vec![25.0], vec![over("floor")]),
            ],
        );
        let document = json!({"parts": [flood.json(), packet.json()]});
        let files: Vec<&str> = pictures(&document)
            .into_iter()
            .map(|(file, _)| file)
            .collect();
        assert_eq!(files, ["flood.svg", "per-packet.svg"]);
    }
}
