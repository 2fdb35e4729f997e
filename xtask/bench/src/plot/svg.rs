//! Writes the part of SVG that the charts need.
//!
//! No library is used because colours must come from a style sheet, which also has colours for dark mode; chart
//! libraries write colours into every element.

use std::fmt::{Display, Write as _};

/// A picture to which elements are added.
pub struct Picture {
    width: f64,
    height: f64,
    body: String,
}

/// The alignment of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Classes `c0` to `c5` are the colours of Okabe and Ito, which people with colour blindness can distinguish; lighter
/// in dark mode.
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
text.title { font-size: 15px; font-weight: 600; }
text.soft { fill: #59636e; font-size: 11px; }
.ground { fill: #ffffff; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.floor { fill: #b7c0c9; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 4; }
.wide { stroke-width: 6; }
.wider { stroke-width: 10; }
.widest { stroke-width: 14; }
.wide, .wider, .widest { opacity: 0.5; }
.fill { stroke: none; }
.c0 { stroke: #0072b2; fill: #0072b2; }
.c1 { stroke: #d55e00; fill: #d55e00; }
.c2 { stroke: #009e73; fill: #009e73; }
.c3 { stroke: #a3527f; fill: #a3527f; }
.c4 { stroke: #9a7d00; fill: #9a7d00; }
.c5 { stroke: #59636e; fill: #59636e; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; }
text.soft { fill: #9198a1; }
.ground { fill: #0d1117; }
.grid { stroke: #3d444d; }
.floor { fill: #565e67; }
.c0 { stroke: #56b4e9; fill: #56b4e9; }
.c1 { stroke: #ff9d57; fill: #ff9d57; }
.c2 { stroke: #3fcf9f; fill: #3fcf9f; }
.c3 { stroke: #e39bc4; fill: #e39bc4; }
.c4 { stroke: #f0e442; fill: #f0e442; }
.c5 { stroke: #9198a1; fill: #9198a1; }
}
.line.line { fill: none; }
.fill.fill { stroke: none; }
";
/// Number of colours.
pub const COLOURS: usize = 6;

impl Picture {
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            body: String::new(),
        }
    }

    pub fn text(&mut self, place: (f64, f64), anchor: Anchor, class: &str, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y) = place;
        let text = escaped(&text.to_string());
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        );
    }

    pub fn bar(&mut self, place: (f64, f64), size: (f64, f64), class: &str) {
        let ((x, y), (width, height)) = (place, size);
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" class=\"{class}\"/>",
            width.max(0.0)
        );
    }

    pub fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" class=\"{class}\"/>",
            points.join(" ")
        );
    }

    pub fn dot(&mut self, place: (f64, f64), class: &str) {
        let (x, y) = place;
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" class=\"{class}\"/>"
        );
    }

    /// Returns the whole file.
    pub fn finish(self) -> String {
        let Self {
            width,
            height,
            body,
        } = self;
        // With a background, since that of the page may not fit the viewer's setting.
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\">\n<style>\n{STYLE}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" class=\"ground\"/>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let mut picture = Picture::new(10.0, 10.0);
        picture.text((1.0, 2.0), Anchor::Start, "soft", "a < b & c");
        let file = picture.finish();
        assert!(file.contains(">a &lt; b &amp; c</text>"), "{file}");
        assert!(file.starts_with("<svg ") && file.ends_with("</svg>\n"));
    }

    #[test]
    fn every_colour_is_there_in_light_and_in_the_dark() {
        for colour in 0..COLOURS {
            assert_eq!(STYLE.matches(&format!("\n.c{colour} {{")).count(), 2);
        }
    }
}
