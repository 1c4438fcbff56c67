//! `rspctl decode`: messages in hexadecimal, for people or as JSON.

use crate::json;
use crate::pcap::{Capture, Captured, Kind};
use clap::{Args, ValueEnum};
use rserpool::wire::{Asap, CspReport, DecodeError, EnrpMessage, frame, show};
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

/// Options of `rspctl decode`.
#[derive(Args)]
pub struct DecodeArgs {
    /// Which protocol the messages belong to.
    protocol: Protocol,
    /// One or more messages back to back in hexadecimal, or `-`: such lines from standard input; of pcap, files.
    ///
    /// Spaces, colons and a leading `0x` do not matter; empty lines and lines that begin with `#`
    /// are passed over. Every message gives one line. Of one that cannot be decoded it is what can be
    /// seen of it, with --json an object with a field `broken`, with --reencode alone an empty line;
    /// it is also reported on standard error, and the exit status is 1 in the end.
    #[arg(required = true, value_name = "HEX|-")]
    hex: Vec<String>,
    /// One JSON object per message.
    #[arg(long)]
    json: bool,
    /// The message encoded anew, in hexadecimal (with --json: as field `reencoded`).
    #[arg(long)]
    reencode: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    /// Between registrar and pool elements or users (RFC 5352).
    Asap,
    /// Between registrars (RFC 5353).
    Enrp,
    /// Component status reports.
    Csp,
    /// Both of the first, in captures as tcpdump -w writes them: HEX are files.
    Pcap,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Asap => "asap",
            Protocol::Enrp => "enrp",
            Protocol::Csp => "csp",
            Protocol::Pcap => "pcap",
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &DecodeArgs) -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr());
    let decoded = if matches!(args.protocol, Protocol::Pcap) {
        args.captures(&mut stdout, &mut stderr)
    } else if args.hex == ["-"] {
        args.lines(&mut io::stdin().lock(), &mut stdout, &mut stderr)
    } else {
        args.line(&args.hex.join(" "), "", &mut stdout, &mut stderr)
    };
    match decoded.and_then(|good| stdout.flush().map(|()| good)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever was reading has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            crate::out::complain(format_args!("rspctl: decode: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl DecodeArgs {
    /// Decodes the messages in files of captured packets, or standard input.
    fn captures(&self, out: &mut impl Write, errors: &mut impl Write) -> io::Result<bool> {
        let mut good = true;
        for path in &self.hex {
            let input: Box<dyn io::Read> = match path.as_str() {
                "-" => Box::new(io::stdin().lock()),
                path => match File::open(path) {
                    Ok(file) => Box::new(io::BufReader::new(file)),
                    Err(error) => {
                        writeln!(errors, "rspctl: decode: {path}: {error}")?;
                        good = false;
                        continue;
                    }
                },
            };
            // What goes wrong with writing ends everything, with reading only this file.
            let mut capture = match Capture::open(input) {
                Ok(capture) => capture,
                Err(error) => {
                    writeln!(errors, "rspctl: decode: {path}: {error}")?;
                    good = false;
                    continue;
                }
            };
            loop {
                match capture.next_packet() {
                    Ok(Some(messages)) => {
                        for message in messages {
                            good &= self.captured(&message, out, errors)?;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        writeln!(errors, "rspctl: decode: {path}: {error}")?;
                        good = false;
                        break;
                    }
                }
            }
            if capture.passed_over > 0 {
                writeln!(errors, "rspctl: decode: {path}: {} packets passed over", capture.passed_over)?;
            }
        }
        Ok(good)
    }

    /// One captured message: when, between whom, and the message.
    fn captured(
        &self,
        captured: &Captured,
        out: &mut impl Write,
        errors: &mut impl Write,
    ) -> io::Result<bool> {
        let protocol = match captured.kind {
            Kind::Asap => Protocol::Asap,
            Kind::Enrp => Protocol::Enrp,
        };
        let of_it = DecodeArgs { protocol, hex: Vec::new(), json: self.json, reencode: self.reencode };
        let Captured { time: (seconds, micros), from, to, bytes, .. } = captured;
        let mut line = Vec::new();
        let place = format!("{seconds}.{micros:06} {from} > {to}: ");
        let good = of_it.line(&json::hex(bytes), &place, &mut line, errors)?;
        for line in String::from_utf8_lossy(&line).lines() {
            if !self.json {
                writeln!(out, "{place}{line}")?;
                continue;
            }
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            value["time"] = format!("{seconds}.{micros:06}").into();
            value["from"] = from.as_str().into();
            value["to"] = to.as_str().into();
            writeln!(out, "{value}")?;
        }
        Ok(good)
    }

    /// Decodes line by line; `false` if something could not be decoded.
    fn lines(
        &self,
        input: &mut impl BufRead,
        out: &mut impl Write,
        errors: &mut impl Write,
    ) -> io::Result<bool> {
        let (mut line, mut good) = (Vec::new(), true);
        for number in 1.. {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() && !text.trim_start().starts_with('#') {
                good &= self.line(&text, &format!("line {number}: "), out, errors)?;
            }
        }
        Ok(good)
    }

    /// Decodes the messages of one line. `place` says in errors which line it is.
    fn line(
        &self,
        text: &str,
        place: &str,
        out: &mut impl Write,
        errors: &mut impl Write,
    ) -> io::Result<bool> {
        let bytes = match unhex(text) {
            Ok(bytes) => bytes,
            Err(reason) => {
                writeln!(errors, "rspctl: decode: {place}{reason}")?;
                return Ok(false);
            }
        };
        let (mut good, mut start) = (true, 0);
        while start == 0 || start < bytes.len() {
            let rest = &bytes[start..];
            // The last message may lack its final padding; what has no end is one broken message.
            let length = frame::first_message(rest).ok().flatten().unwrap_or(rest.len());
            match self.message(&rest[..length]) {
                Ok(line) => writeln!(out, "{line}")?,
                Err(error) => {
                    writeln!(out, "{}", self.broken(&rest[..length], &error))?;
                    let DecodeError { at, reason, cause } = error;
                    let answer = match cause {
                        Some(cause) => format!("to be reported as {}", cause.code),
                        None => "to be dropped in silence".into(),
                    };
                    writeln!(errors, "rspctl: decode: {place}at byte {}: {reason}, {answer}", start + at)?;
                    good = false;
                }
            }
            start += length.max(1);
        }
        Ok(good)
    }

    /// What to print for one message.
    fn message(&self, bytes: &[u8]) -> Result<String, DecodeError> {
        let (mut value, reencoded) = match self.protocol {
            // Of a capture, each message has a protocol of its own.
            Protocol::Asap | Protocol::Pcap => {
                let decoded = Asap::decode(bytes)?;
                (self.json.then(|| json::asap(&decoded)), decoded.message.encode())
            }
            Protocol::Enrp => {
                let decoded = EnrpMessage::decode(bytes)?;
                (self.json.then(|| json::enrp(&decoded)), decoded.message.encode())
            }
            Protocol::Csp => {
                let report = CspReport::decode(bytes)?;
                (self.json.then(|| json::csp(&report)), report.encode())
            }
        };
        let reencoded = self.reencode.then(|| json::hex(&reencoded));
        if let (Some(object), Some(reencoded)) = (&mut value, &reencoded) {
            object["reencoded"] = reencoded.as_str().into();
        }
        Ok(value.map(|value| value.to_string()).or(reencoded).unwrap_or_else(|| self.show(bytes)))
    }

    /// The line of a message that cannot be decoded.
    fn broken(&self, bytes: &[u8], error: &DecodeError) -> String {
        if self.json {
            return json::broken(self.protocol.name(), bytes, error).to_string();
        }
        if self.reencode { String::new() } else { self.show(bytes) }
    }

    fn show(&self, bytes: &[u8]) -> String {
        match self.protocol {
            Protocol::Asap | Protocol::Pcap => show::asap(bytes),
            Protocol::Enrp => show::enrp(bytes),
            Protocol::Csp => show::csp(bytes),
        }
    }
}

/// The bytes of hexadecimal digits, whatever separates them.
fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let text = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
    let mut digits = Vec::new();
    for (at, character) in text.char_indices() {
        match character.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None if character.is_whitespace() || character == ':' => {}
            None => return Err(format!("not a hexadecimal digit at character {}: {character:?}", at + 1)),
        }
    }
    if !digits.len().is_multiple_of(2) {
        return Err("odd number of hexadecimal digits".into());
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(protocol: Protocol, json: bool, reencode: bool) -> DecodeArgs {
        DecodeArgs { protocol, hex: vec!["-".into()], json, reencode }
    }

    fn lines(args: &DecodeArgs, input: &str) -> (bool, String, String) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let good = args.lines(&mut input.as_bytes(), &mut out, &mut errors).unwrap();
        (good, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
    }

    #[test]
    fn a_line_each() {
        let input = "# two messages, then one without its final padding\n\n\
                     0a00000811111111 0a:00:00:08:22:22:22:22\n0x0b00000f000d000b434f4f4b494521\n";
        let (good, out, errors) = lines(&args(Protocol::Asap, false, false), input);
        assert!(good);
        assert_eq!(
            out,
            "ASAP ServerAnnounce registrar=0x11111111\nASAP ServerAnnounce registrar=0x22222222\n\
             ASAP Cookie cookie=\"COOKIE!\"\n"
        );
        assert_eq!(errors, "");
    }

    #[test]
    fn errors_do_not_stop_the_rest() {
        let input = "0a0000081111\n0g\n123\n0a00000811111111 02000004 0a00000833333333\n0a00000822222222";
        let (good, out, errors) = lines(&args(Protocol::Asap, false, false), input);
        assert!(!good);
        let lines_out: Vec<&str> = out.lines().collect();
        assert_eq!(lines_out.len(), 5, "{out}");
        assert!(lines_out[0].starts_with("ASAP ServerAnnounce broken at byte 0: "), "{out}");
        assert_eq!(lines_out[1], "ASAP ServerAnnounce registrar=0x11111111");
        assert!(lines_out[2].starts_with("ASAP Deregistration broken at byte 4: "), "{out}");
        let errors: Vec<&str> = errors.lines().collect();
        assert_eq!(
            errors,
            [
                "rspctl: decode: line 1: at byte 0: message shorter than its declared length, to be reported \
                 as invalid values",
                "rspctl: decode: line 2: not a hexadecimal digit at character 2: 'g'",
                "rspctl: decode: line 3: odd number of hexadecimal digits",
                "rspctl: decode: line 4: at byte 12: mandatory parameter missing, to be reported as invalid \
                 values",
            ]
        );
        // Every message keeps its place in other kinds of output.
        let (_, out, _) = lines(&args(Protocol::Asap, false, true), input);
        assert_eq!(out, "\n0a00000811111111\n\n0a00000833333333\n0a00000822222222\n");
        let (_, out, _) = lines(&args(Protocol::Asap, true, false), input);
        let first: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        let expected = serde_json::json!({
            "protocol": "asap",
            "broken": { "at": 0, "reason": "message shorter than its declared length", "cause": 0x3 },
            "bytes": "0a0000081111",
        });
        assert_eq!(first, expected);
    }

    /// Unknown parameters by their two high bits (RFC 5354 section 3).
    #[test]
    fn what_is_unknown() {
        let with = |kind: &str| format!("05 00 0014 {kind} 0008 deadbeef 0009 0008 706f6f6c");
        let decode = |kind: &str| lines(&args(Protocol::Asap, false, false), &with(kind));
        for (kind, answer) in
            [("3333", "to be dropped in silence"), ("7333", "to be reported as unrecognized parameter")]
        {
            let (good, _, errors) = decode(kind);
            assert!(!good);
            let expected = format!(
                "rspctl: decode: line 1: at byte 4: unknown parameter that must be understood, {answer}\n"
            );
            assert_eq!(errors, expected);
        }
        let (good, out, _) = decode("b333");
        assert_eq!((good, out.as_str()), (true, "ASAP HandleResolution pool=\"pool\"\n"));
        let (good, out, _) = decode("f333");
        assert_eq!(
            (good, out.as_str()),
            (true, "ASAP HandleResolution pool=\"pool\" unknown=0xf3330008deadbeef\n")
        );
    }

    #[test]
    fn nothing_is_no_message() {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        assert!(!args(Protocol::Enrp, false, false).line("", "", &mut out, &mut errors).unwrap());
        assert!(out.starts_with(b"ENRP broken at byte 0: ") && !errors.is_empty());
    }

    #[test]
    fn encoded_anew() {
        // Message length without the padding, as the RFC counts; then as rsplib does.
        let (good, out, _) = lines(&args(Protocol::Asap, false, true), "0B00000f000d000b434f4f4b49452100");
        assert_eq!((good, out.as_str()), (true, "0b000010000d000b434f4f4b49452100\n"));
    }

    #[test]
    fn as_json() {
        let input = "04010060 11111111 22222222 0000 0000 0009000d 4563686f506f6f6c31 000000 \
                     000a0040 abcd1234 11111111 00015f90 00040010 89b6 0001 00010008 0a010101 \
                     00080010 40000002 00000000 40000000 00040010 848b 0000 00010008 0a010101";
        let (good, out, _) = lines(&args(Protocol::Enrp, true, true), input);
        assert!(good);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let transport = |port: u16, usage: &str| {
            serde_json::json!({
                "protocol": "sctp", "port": port, "usage": usage, "addresses": ["10.1.1.1"],
            })
        };
        let expected = serde_json::json!({
            "protocol": "enrp",
            "type": "HandleUpdate",
            "sender": "0x11111111",
            "receiver": "0x22222222",
            "takeover_suggested": true,
            "action": "add",
            "handle": "EchoPool1",
            "element": {
                "id": "0xabcd1234",
                "home": "0x11111111",
                "life": 90000,
                "transport": transport(35254, "data+control"),
                "policy": {
                    "type": 0x4000_0002u32, "name": "LeastUsedDegradation",
                    "load": 0, "degradation": 0x4000_0000u32,
                },
                "asap": transport(33931, "data"),
            },
            "unrecognized": [],
            "reencoded": input.split(' ').collect::<String>(),
        });
        assert_eq!(value, expected);
    }
}
