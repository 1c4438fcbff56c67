//! Captures (pcap, as tcpdump -w writes): the ASAP and ENRP messages in them, over SCTP and TCP, to the decoder.

use rserpool::wire::{ASAP_PORT, ENRP_PORT, PPID_ASAP, PPID_ENRP};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

/// The longest packet taken.
const LONGEST: usize = 1 << 20;
/// Bytes of one direction of a TCP connection that wait for the rest of a message.
const MAX_HALF: usize = 1 << 17;
/// Directions of TCP connections remembered.
const MAX_STREAMS: usize = 4096;

/// Which protocol a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Asap,
    Enrp,
}

/// A message as it was captured.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured {
    pub kind: Kind,
    /// Seconds and microseconds.
    pub time: (u32, u32),
    pub from: String,
    pub to: String,
    pub bytes: Vec<u8>,
}

/// Reads a capture.
pub struct Capture<R> {
    input: R,
    swapped: bool,
    nanoseconds: bool,
    link: u32,
    streams: BTreeMap<(String, String), Reassembly>,
    /// Packets that were cut or are of kinds that nobody here knows.
    pub passed_over: usize,
}

#[derive(Default)]
struct Reassembly {
    /// Sequence number of what comes next.
    next: Option<u32>,
    half: Vec<u8>,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_string())
}

impl<R: Read> Capture<R> {
    pub fn open(mut input: R) -> io::Result<Capture<R>> {
        let mut head = [0; 24];
        input.read_exact(&mut head).map_err(|_| invalid("too short for a capture"))?;
        let (swapped, nanoseconds) = match head[..4] {
            [0xd4, 0xc3, 0xb2, 0xa1] => (true, false),
            [0xa1, 0xb2, 0xc3, 0xd4] => (false, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => (true, true),
            [0xa1, 0xb2, 0x3c, 0x4d] => (false, true),
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                return Err(invalid("pcapng is not read; make a pcap of it: tcpdump -r FILE -w NEW"));
            }
            _ => return Err(invalid("no capture of tcpdump's")),
        };
        let mut capture =
            Capture { input, swapped, nanoseconds, link: 0, streams: BTreeMap::new(), passed_over: 0 };
        capture.link = capture.number(&head[20..24]) & 0x0fff_ffff;
        Ok(capture)
    }

    fn number(&self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.swapped { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }

    /// The messages of the next packet; `None`: the end.
    pub fn next_packet(&mut self) -> io::Result<Option<Vec<Captured>>> {
        let mut head = [0; 16];
        let mut filled = 0;
        while filled < head.len() {
            match self.input.read(&mut head[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(invalid("the capture ends in the middle of a packet")),
                count => filled += count,
            }
        }
        let length = self.number(&head[8..12]) as usize;
        if length > LONGEST {
            return Err(invalid("a packet is longer than packets are"));
        }
        let fraction = self.number(&head[4..8]);
        let time = (self.number(&head[..4]), if self.nanoseconds { fraction / 1000 } else { fraction });
        let mut packet = vec![0; length];
        let read = self.input.read_exact(&mut packet);
        read.map_err(|_| invalid("the capture ends in the middle of a packet"))?;
        let found = self.link_layer(time, &packet);
        if found.is_none() {
            self.passed_over += 1;
        }
        Ok(Some(found.unwrap_or_default()))
    }

    fn link_layer(&mut self, time: (u32, u32), packet: &[u8]) -> Option<Vec<Captured>> {
        let ip = match self.link {
            // Null and loopback.
            0 | 108 => packet.get(4..)?,
            1 => {
                let mut at = 12;
                while packet.get(at..at + 2)? == [0x81, 0x00] {
                    at += 4;
                }
                packet.get(at + 2..)?
            }
            101 | 228 | 229 => packet,
            113 => packet.get(16..)?,
            276 => packet.get(20..)?,
            _ => return None,
        };
        match ip.first()? >> 4 {
            4 => {
                let header = usize::from(ip[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
                // Not the middle of a fragmented packet.
                if u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff != 0 {
                    return None;
                }
                let address = |at: usize| {
                    let bytes: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
                    Some(std::net::Ipv4Addr::from(bytes).to_string())
                };
                let (from, to) = (address(12)?, address(16)?);
                // Segmentation in the network card leaves 0 here.
                let end = if total == 0 { ip.len() } else { total.min(ip.len()) };
                self.payload(time, *ip.get(9)?, &from, &to, ip.get(header..end)?)
            }
            6 => {
                let length = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
                let address = |at: usize| {
                    let bytes: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
                    Some(format!("[{}]", std::net::Ipv6Addr::from(bytes)))
                };
                let (from, to) = (address(8)?, address(24)?);
                let end = if length == 0 { ip.len() } else { (40 + length).min(ip.len()) };
                self.payload(time, *ip.get(6)?, &from, &to, ip.get(40..end)?)
            }
            _ => None,
        }
    }

    fn payload(
        &mut self,
        time: (u32, u32),
        protocol: u8,
        from: &str,
        to: &str,
        data: &[u8],
    ) -> Option<Vec<Captured>> {
        let source = u16::from_be_bytes([*data.first()?, *data.get(1)?]);
        let target = u16::from_be_bytes([*data.get(2)?, *data.get(3)?]);
        let (from, to) = (format!("{from}:{source}"), format!("{to}:{target}"));
        let by_port = || match (source, target) {
            (ASAP_PORT, _) | (_, ASAP_PORT) => Some(Kind::Asap),
            (ENRP_PORT, _) | (_, ENRP_PORT) => Some(Kind::Enrp),
            _ => None,
        };
        let one = |kind, bytes: Vec<u8>| Captured { kind, time, from: from.clone(), to: to.clone(), bytes };
        match protocol {
            6 => {
                let Some(kind) = by_port() else { return Some(Vec::new()) };
                let sequence = u32::from_be_bytes(data.get(4..8)?.try_into().ok()?);
                let header = usize::from(data.get(12)? >> 4) * 4;
                let syn = data.get(13)? & 2 != 0;
                let bytes = data.get(header..)?;
                let messages = self.stream(&from, &to, sequence, syn, bytes)?;
                Some(messages.into_iter().map(|bytes| one(kind, bytes)).collect())
            }
            17 => {
                let Some(kind) = by_port() else { return Some(Vec::new()) };
                Some(vec![one(kind, data.get(8..)?.to_vec())])
            }
            132 => Some(chunks(data.get(12..)?).into_iter().map(|(kind, bytes)| one(kind, bytes)).collect()),
            _ => Some(Vec::new()),
        }
    }

    /// Whole messages of a stream. What is missing is not waited for: the stream goes on behind it.
    fn stream(
        &mut self,
        from: &str,
        to: &str,
        sequence: u32,
        syn: bool,
        bytes: &[u8],
    ) -> Option<Vec<Vec<u8>>> {
        if self.streams.len() >= MAX_STREAMS {
            self.streams.clear();
        }
        let stream = self.streams.entry((from.into(), to.into())).or_default();
        if syn {
            *stream = Reassembly { next: Some(sequence.wrapping_add(1)), half: Vec::new() };
            return Some(Vec::new());
        }
        let next = *stream.next.get_or_insert(sequence);
        let known = next.wrapping_sub(sequence);
        let new = match known {
            // Sent again.
            1..=0x7fff_ffff => bytes.get(known as usize..).unwrap_or_default(),
            0 => bytes,
            _ => {
                stream.half.clear();
                bytes
            }
        };
        if !new.is_empty() {
            stream.next = Some(sequence.wrapping_add(u32::try_from(bytes.len()).ok()?));
        }
        stream.half.extend_from_slice(new);
        let mut messages = Vec::new();
        while let [_, _, high, low, ..] = stream.half[..] {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let padded = length.next_multiple_of(4);
            if length < 4 {
                stream.half.clear();
                break;
            }
            if stream.half.len() < padded {
                break;
            }
            messages.push(stream.half[..length].to_vec());
            stream.half.drain(..padded);
        }
        if stream.half.len() > MAX_HALF {
            stream.half.clear();
        }
        Some(messages)
    }
}

/// The whole messages in the DATA chunks of an SCTP packet, by their PPID.
fn chunks(mut data: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut found = Vec::new();
    while let [kind, flags, high, low, ..] = *data {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(chunk) = data.get(..length).filter(|_| length >= 4) else { break };
        // DATA, its first and last part in one.
        if kind == 0
            && flags & 3 == 3
            && let (Some(ppid), Some(bytes)) = (chunk.get(12..16), chunk.get(16..))
        {
            match u32::from_be_bytes([ppid[0], ppid[1], ppid[2], ppid[3]]) {
                PPID_ASAP => found.push((Kind::Asap, bytes.to_vec())),
                PPID_ENRP => found.push((Kind::Enrp, bytes.to_vec())),
                _ => {}
            }
        }
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capture of IPv4 packets without a link layer.
    fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut out = 0xa1b2_c3d4_u32.to_be_bytes().to_vec();
        out.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 101]);
        for packet in packets {
            for number in [7, 8, packet.len() as u32, packet.len() as u32] {
                out.extend(number.to_be_bytes());
            }
            out.extend(packet);
        }
        out
    }

    fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let length = (ip.len() + payload.len()) as u16;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip.extend(payload);
        ip
    }

    fn tcp(sequence: u32, bytes: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..2].copy_from_slice(&40_000u16.to_be_bytes());
        segment[2..4].copy_from_slice(&ASAP_PORT.to_be_bytes());
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment[12] = 5 << 4;
        segment.extend(bytes);
        packet(6, &segment)
    }

    fn all(bytes: &[u8]) -> Vec<Captured> {
        let mut capture = Capture::open(bytes).unwrap();
        let mut found = Vec::new();
        while let Some(more) = capture.next_packet().unwrap() {
            found.extend(more);
        }
        found
    }

    #[test]
    fn messages_of_a_stream_are_put_together_and_those_sent_again_are_one() {
        let message = [5, 0, 0, 6, 1, 2, 0, 0];
        let twice = [message, message].concat();
        let packets =
            [tcp(100, &twice[..3]), tcp(103, &twice[3..10]), tcp(103, &twice[3..10]), tcp(110, &twice[10..])];
        let found = all(&capture(&packets));
        assert_eq!(found.len(), 2);
        for captured in found {
            assert_eq!((captured.kind, &captured.bytes[..]), (Kind::Asap, &message[..6]));
            assert_eq!(
                (captured.time, &captured.from[..], &captured.to[..]),
                ((7, 8), "10.0.0.1:40000", "10.0.0.2:3863")
            );
        }
    }

    #[test]
    fn chunks_are_found_by_their_ppid() {
        let chunk = |flags, ppid: u32, bytes: &[u8]| {
            let mut chunk = vec![0, flags];
            chunk.extend((16 + bytes.len() as u16).to_be_bytes());
            chunk.extend([0; 8]);
            chunk.extend(ppid.to_be_bytes());
            chunk.extend(bytes);
            chunk.resize(chunk.len().next_multiple_of(4), 0);
            chunk
        };
        let header = [0x0f, 0x17, 0x0f, 0x17, 0, 0, 0, 0, 0, 0, 0, 0];
        let data = [
            &header[..],
            &chunk(3, 12, b"enrp!"),
            &chunk(3, 7, b"data"),
            &chunk(2, 11, b"part"),
            &chunk(3, 11, b"asap"),
        ];
        let found = all(&capture(&[packet(132, &data.concat())]));
        let found: Vec<_> = found.into_iter().map(|captured| (captured.kind, captured.bytes)).collect();
        assert_eq!(found, [(Kind::Enrp, b"enrp!".to_vec()), (Kind::Asap, b"asap".to_vec())]);
    }

    #[test]
    fn what_is_no_capture_is_said_and_nothing_panics() {
        assert!(Capture::open(&b"too short"[..]).is_err());
        assert!(Capture::open(&[0; 24][..]).is_err());
        let good = capture(&[
            tcp(1, &[5, 0, 0, 3]),
            packet(132, &[0; 13]),
            packet(6, &[1]),
            vec![0x45],
            vec![0x65; 41],
        ]);
        for length in 24..good.len() {
            let mut capture = Capture::open(&good[..length]).unwrap();
            while let Ok(Some(_)) = capture.next_packet() {}
        }
        for at in 24..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            let mut capture = Capture::open(&changed[..]).unwrap();
            while let Ok(Some(_)) = capture.next_packet() {}
        }
    }
}
