//! Rounds of small requests: what came for many sockets in one call, and all answers in another.

use crate::lab::{CONFIG, Lab, Peer, buffer, parse};
use interface::socket::{EVENT_LIMIT, EventList, STREAM_BYTES, SendList, Sending, SocketId, Sockets};
use proptest::prelude::*;
use rref::RRef;
use smoltcp::wire::TcpControl;

/// What came: for each socket its bytes, and whether there is more for `receive`.
fn wait_received(lab: &Lab) -> Vec<(SocketId, Vec<u8>, bool)> {
    let list = EventList {
        length: 0,
        events: [None; EVENT_LIMIT],
    };
    let arrived = lab
        .sockets
        .wait_received(0, RRef::new(list).expect("memory"), buffer(&[]), 0)
        .expect("shard 0");
    let mut start = 0;
    arrived.events.events[..arrived.events.length as usize]
        .iter()
        .flatten()
        .map(|event| {
            let end = start + event.received as usize;
            let bytes = arrived.buffer.data[start..end].to_vec();
            start = end;
            (event.socket, bytes, event.readable)
        })
        .collect()
}

/// Sends each its answer; the places of those that weren't sent.
fn send_many(lab: &Lab, answers: &[(SocketId, &[u8])]) -> u64 {
    let mut list = RRef::new(SendList {
        length: answers.len() as u32,
        sends: [None; EVENT_LIMIT],
        data: [0; STREAM_BYTES],
    })
    .expect("memory");
    let mut end = 0;
    for (index, (socket, bytes)) in answers.iter().enumerate() {
        list.data[end..end + bytes.len()].copy_from_slice(bytes);
        end += bytes.len();
        list.sends[index] = Some(Sending {
            socket: *socket,
            end: end as u32,
        });
    }
    lab.sockets.send_many(0, &list).expect("shard 0")
}

fn open(lab: &mut Lab, count: u16) -> Vec<(Peer, SocketId)> {
    (0..count)
        .map(|number| {
            let mut peer = Peer::new(4000 + number, 80);
            let socket = peer.connect(lab);
            (peer, socket)
        })
        .collect()
}

/// The bytes that buffers of sockets take: 0 as long as no connection needed one.
fn socket_bytes(lab: &Lab) -> u64 {
    lab.buffer_bytes()
}

#[test]
fn a_round_brings_all_bytes_and_takes_all_answers() {
    let mut lab = Lab::new(CONFIG);
    lab.listen(80, 64);
    let mut ends = open(&mut lab, 20);
    for round in 0..3 {
        let requests: Vec<Vec<u8>> = ends
            .iter_mut()
            .enumerate()
            .map(|(index, (peer, _))| peer.data(format!("request {index} of {round}").as_bytes()))
            .collect();
        assert!(lab.exchange(&requests).is_empty());
        let arrived = wait_received(&lab);
        assert_eq!(arrived.len(), ends.len());
        for (index, (socket, bytes, more)) in arrived.iter().enumerate() {
            assert_eq!((*socket, *more), (ends[index].1, false));
            assert_eq!(bytes, format!("request {index} of {round}").as_bytes());
        }
        let answers: Vec<_> = arrived
            .iter()
            .map(|(socket, bytes, _)| (*socket, &bytes[..]))
            .collect();
        assert_eq!(send_many(&lab, &answers), 0);
        let sent = lab.exchange(&[]);
        assert_eq!(sent.len(), ends.len());
        for (frame, ((peer, _), (_, bytes, _))) in sent.iter().zip(ends.iter_mut().zip(&arrived)) {
            assert_eq!(&peer.take(frame).payload, bytes);
        }
    }
    assert_eq!(socket_bytes(&lab), 0);
}

#[test]
fn what_needs_a_socket_is_left_to_receive_and_send() {
    let mut lab = Lab::new(CONFIG);
    lab.listen(80, 64);
    let mut ends = open(&mut lab, 3);
    let long = vec![7; 3000];
    let strange = SocketId {
        serial: 99,
        ..ends[0].1
    };
    let answers = [
        (ends[0].1, &b"short"[..]),
        (ends[1].1, &long[..]),
        (strange, b"nobody"),
        (ends[2].1, b"short"),
    ];
    assert_eq!(send_many(&lab, &answers), 0b110);
    assert_eq!(lab.exchange(&[]).len(), 2);
    // The first answers aren't acknowledged: a second one waits for a socket.
    assert_eq!(send_many(&lab, &answers[..1]), 1);

    // The end of a stream is nothing that comes with an event.
    let (peer, socket) = &mut ends[2];
    lab.exchange(&[peer.segment(TcpControl::Fin, b"last words")]);
    let arrived = wait_received(&lab);
    assert_eq!(arrived, [(*socket, Vec::new(), true)]);
    assert_eq!(lab.receive(*socket), (b"last words".to_vec(), false));
}

#[test]
fn a_request_that_comes_again_is_acknowledged_again() {
    let (mut lab, mut peer, socket) = Lab::connected();
    let request = peer.data(b"request");
    assert!(lab.exchange(std::slice::from_ref(&request)).is_empty());
    let answers = lab.exchange(&[request]);
    assert_eq!(answers.len(), 1);
    let answer = parse(&answers[0]);
    assert_eq!(
        (answer.payload.len(), answer.acknowledgement),
        (0, Some(peer.sequence))
    );
    assert_eq!(wait_received(&lab), [(socket, b"request".to_vec(), false)]);
    assert_eq!(socket_bytes(&lab), 0);
}

#[test]
fn a_busy_connection_gives_its_socket_back() {
    let (mut lab, mut peer, socket) = Lab::connected();
    assert_eq!(lab.send(socket, &[7; 3000]), 3000);
    let mut taken = 0;
    for _ in 0..10 {
        for frame in lab.exchange(&[peer.segment(TcpControl::None, &[])]) {
            taken += peer.take(&frame).payload.len();
        }
    }
    assert_eq!(taken, 3000);
    assert!(socket_bytes(&lab) > 0);
    let mut rounds_with_socket = 0;
    for round in 0..30 {
        lab.advance_ms(100);
        assert!(lab.exchange(&[peer.data(b"request")]).is_empty());
        let bytes = match wait_received(&lab).as_slice() {
            [(_, _, true)] => lab.receive(socket).0,
            [(_, bytes, false)] => bytes.clone(),
            others => panic!("{others:?}"),
        };
        assert_eq!(bytes, b"request");
        rounds_with_socket += u32::from(socket_bytes(&lab) > 0);
        assert_eq!(
            lab.send(socket, format!("answer {round}").as_bytes()),
            format!("answer {round}").len()
        );
        let answers = lab.exchange(&[]);
        assert_eq!(answers.len(), 1);
        assert_eq!(
            peer.take(&answers[0]).payload,
            format!("answer {round}").as_bytes()
        );
    }
    assert!((5..15).contains(&rounds_with_socket), "{rounds_with_socket}");
    assert_eq!(socket_bytes(&lab), 0);
}

proptest! {
    /// Lists that a domain may make up: nobody's bytes but those of its own sockets are sent, and nothing outside of the list.
    #[test]
    fn any_list_is_taken(ends in prop::collection::vec(any::<u32>(), 0..64), length: u32) {
        let (mut lab, _, socket) = Lab::connected();
        let mut list = RRef::new(SendList {
            length,
            sends: [None; EVENT_LIMIT],
            data: [1; STREAM_BYTES],
        })
        .expect("memory");
        for (slot, end) in list.sends.iter_mut().zip(&ends) {
            *slot = Some(Sending { socket, end: *end });
        }
        let unsent = lab.sockets.send_many(0, &list).expect("shard 0");
        let count = (length as usize).min(ends.len()) as u32;
        // One at most: the second one would have to wait for the first.
        prop_assert!(count.saturating_sub(unsent.count_ones()) <= 1);
        prop_assert!(lab.exchange(&[]).len() <= 1);
    }
}
