//! What a hook prints: its first lines go to the log.

use std::io;

use tokio::{io::AsyncReadExt as _, net::unix::pipe};

/// Bytes of one run that are logged.
const MOST: usize = 4096;

/// Reads the output to its end. Returns the first part of it, and how many more bytes there were: these are read too, so
/// that the program does not wait for a reader.
pub async fn read(mut output: pipe::Receiver) -> io::Result<(Vec<u8>, u64)> {
    let mut kept = Vec::new();
    let mut more = 0;
    let mut buffer = [0; 4096];
    loop {
        let length = output.read(&mut buffer).await?;
        if length == 0 {
            return Ok((kept, more));
        }
        let (keep, leave) = buffer[..length].split_at(length.min(MOST - kept.len()));
        kept.extend_from_slice(keep);
        more += leave.len() as u64;
    }
}

/// Returns the lines of what was read, without characters that control a terminal.
pub fn lines(kept: &[u8], more: u64) -> Vec<String> {
    let text = String::from_utf8_lossy(kept);
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().map(plain).collect())
        .collect();
    if more != 0 {
        lines.push(format!("(and {more} more bytes)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_steer_the_terminal() {
        assert_eq!(
            lines(b"one\n\x1b[31mtwo\tthree\xff\n", 7),
            ["one", "\u{fffd}[31mtwo three\u{fffd}", "(and 7 more bytes)"]
        );
        assert_eq!(lines(b"", 0), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn the_first_part_is_kept_and_the_rest_counted() {
        let (sender, receiver) = pipe::pipe().expect("a pipe");
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let mut sender = sender;
            sender
                .write_all(&vec![b'x'; 100_000])
                .await
                .expect("read to its end");
        });
        let (kept, more) = read(receiver).await.expect("readable");
        writing.await.expect("no panic");
        assert_eq!((kept.len(), more), (MOST, 100_000 - MOST as u64));
    }
}
