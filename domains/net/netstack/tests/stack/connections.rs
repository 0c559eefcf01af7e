//! Connections against a scripted peer: handshake, data, closing, limits.

use crate::lab::{self, CONFIG, Lab, Peer, parse};
use interface::socket::{SocketError, Sockets};
use rref::packet::ChecksumState;
use smoltcp::wire::TcpControl;

/// Accepts the connections that wait.
fn accept(lab: &Lab) -> Vec<interface::socket::SocketId> {
    lab.events().iter().filter_map(|event| event.accepted).collect()
}

#[test]
fn serves_a_request_and_closes() {
    for mut peer in [Peer::new(4000, 80), Peer::new_v6(4001, 80)] {
        let mut lab = Lab::new(CONFIG);
        let listener = lab.listen(80, 8);
        peer.open(&mut lab);
        let events = lab.events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].socket, listener);
        let socket = events[0].accepted.expect("a connection");
        assert_eq!(
            lab.sockets.endpoints(socket).expect("open").remote.port(),
            peer.port
        );

        assert!(
            lab.exchange(&[peer.data(b"GET /")]).is_empty(),
            "the acknowledgement waits for data"
        );
        let events = lab.events();
        assert!(events.len() == 1 && events[0].readable && events[0].socket == socket);
        assert_eq!(lab.receive(socket), (b"GET /".to_vec(), false));
        assert_eq!(lab.send(socket, b"200 OK"), 6);
        let answers = lab.exchange(&[]);
        assert_eq!(answers.len(), 1);
        let answer = peer.take(&answers[0]);
        assert_eq!(answer.payload, b"200 OK");
        assert_eq!(answer.acknowledgement, Some(peer.sequence));

        // The stack closes first: FIN, then its TIME-WAIT answers a repeated FIN, and the owner hears of the end.
        lab.sockets.close(socket).expect("open");
        let answers = lab.exchange(&[peer.segment(TcpControl::None, &[])]);
        assert_eq!(peer.take(&answers[0]).control, TcpControl::Fin);
        let answers = lab.exchange(&[
            peer.segment(TcpControl::None, &[]),
            peer.segment(TcpControl::Fin, &[]),
        ]);
        assert_eq!(
            parse(answers.last().expect("an acknowledgement")).acknowledgement,
            Some(peer.sequence + 1)
        );
        let events = lab.events();
        assert!(events.len() == 1 && events[0].closed && events[0].socket == socket);
        assert_eq!(lab.sockets.endpoints(socket).err(), Some(SocketError::NotFound));
        assert_eq!(lab.sockets.statistics().expect("up").connections, 0);
        let again = lab.exchange(&[peer.segment(TcpControl::Fin, &[])]);
        let again = parse(&again[0]);
        assert_eq!(again.acknowledgement, Some(peer.sequence + 1));
        assert_eq!(again.sequence, peer.acknowledgement);
        assert_eq!(lab.buffer_bytes(), 0);
    }
}

#[test]
fn the_peer_closes_first() {
    let (mut lab, mut peer, socket) = Lab::connected();
    assert!(
        lab.exchange(&[peer.segment(TcpControl::Fin, b"last words")])
            .is_empty()
    );
    peer.sequence += 11;
    lab.advance_ms(40);
    let answers = lab.exchange(&[]);
    assert_eq!(parse(&answers[0]).acknowledgement, Some(peer.sequence));
    assert!(lab.events()[0].readable);
    assert_eq!(lab.receive(socket), (b"last words".to_vec(), false));
    assert_eq!(lab.receive(socket), (vec![], true));
    assert_eq!(lab.send(socket, b"bye"), 3);
    lab.sockets.close(socket).expect("open");
    let answers = lab.exchange(&[]);
    let answer = peer.take(&answers[0]);
    assert_eq!(
        (answer.payload.as_slice(), answer.control),
        (&b"bye"[..], TcpControl::Fin)
    );
    assert!(lab.exchange(&[peer.segment(TcpControl::None, &[])]).is_empty());
    assert!(lab.events()[0].closed);
    assert_eq!(lab.sockets.statistics().expect("up").connections, 0);
}

/// Nobody reads what comes after the application has closed. While the end may have crossed it on the way it is taken and thrown away, so that the last
/// answer arrives; a peer that has acknowledged the end and goes on is told by a reset (RFC 1122, 4.2.2.13).
#[test]
fn a_peer_that_sends_on_after_the_close_is_reset() {
    for with_socket in [false, true] {
        let (mut lab, mut peer, socket) = Lab::connected();
        if with_socket {
            // A segment beyond a hole is smoltcp's.
            let mut ahead = peer.clone();
            ahead.sequence += 3;
            lab.exchange(&[ahead.data(b"d")]);
        }
        lab.exchange(&[peer.data(b"unread")]);
        assert_eq!(lab.send(socket, b"413 Too Large"), 13);
        lab.sockets.close(socket).expect("open");
        let answers = lab.exchange(&[]);
        let last = parse(answers.last().expect("the answer and its end"));
        assert_eq!(last.control, TcpControl::Fin);
        // On its way when the end came: acknowledged, and neither delivered nor refused.
        for answer in lab.exchange(&[peer.data(b"more")]) {
            assert_ne!(parse(&answer).control, TcpControl::Rst);
        }
        for answer in &answers {
            peer.take(answer);
        }
        let answers = lab.exchange(&[peer.segment(TcpControl::None, &[])]);
        assert!(
            answers
                .iter()
                .all(|answer| parse(answer).control != TcpControl::Rst)
        );
        assert_eq!(lab.sockets.statistics().expect("up").connections, 1);

        // What was taken before comes again: an acknowledgement will do.
        let mut repeated = peer.clone();
        repeated.sequence -= 4;
        let answers = lab.exchange(&[repeated.data(b"more")]);
        assert!(
            answers
                .iter()
                .all(|answer| parse(answer).control != TcpControl::Rst)
        );

        let answers = lab.exchange(&[peer.data(b"and more")]);
        assert_eq!(answers.len(), 1, "socket {with_socket}");
        let answer = parse(&answers[0]);
        assert_eq!(
            (answer.control, answer.sequence),
            (TcpControl::Rst, peer.acknowledgement)
        );
        let events = lab.events();
        assert!(events.iter().any(|event| event.closed && event.socket == socket));
        let statistics = lab.sockets.statistics().expect("up");
        assert_eq!((statistics.connections, statistics.aborted), (0, 1));
        assert_eq!(lab.buffer_bytes(), 0);
    }
}

/// The same for last words in one segment with the peer's own end.
#[test]
fn last_words_after_the_close_are_reset() {
    let (mut lab, mut peer, socket) = Lab::connected();
    lab.sockets.close(socket).expect("open");
    let answers = lab.exchange(&[]);
    assert_eq!(peer.take(&answers[0]).control, TcpControl::Fin);
    let answers = lab.exchange(&[peer.segment(TcpControl::Fin, b"but")]);
    assert_eq!(parse(&answers[0]).control, TcpControl::Rst);
    assert_eq!(lab.sockets.statistics().expect("up").connections, 0);
}

#[test]
fn a_reset_ends_the_connection() {
    let (mut lab, peer, socket) = Lab::connected();
    assert!(lab.exchange(&[peer.segment(TcpControl::Rst, &[])]).is_empty());
    let events = lab.events();
    assert!(events[0].closed && events[0].socket == socket);
    assert_eq!(lab.sockets.statistics().expect("up").aborted, 1);

    let mut peer = Peer::new(4002, 80);
    let socket = peer.connect(&mut lab);
    lab.sockets.abort(socket).expect("open");
    let answers = lab.exchange(&[]);
    assert_eq!(parse(&answers[0]).control, TcpControl::Rst);
    assert_eq!(lab.sockets.statistics().expect("up").connections, 0);
}

/// A peer whose reset was lost connects again from the same port (RFC 5961, 4.2): the answer to its SYN draws the reset that makes room.
#[test]
fn a_lost_reset_does_not_block_the_port() {
    // Its new sequence number is before the old window, in it, or beyond.
    for distance in [0xffff_0000_u32, 0, 1000, 0x1000_0000] {
        for with_socket in [false, true] {
            let mut lab = Lab::new(CONFIG);
            lab.advance_ms(1000);
            lab.listen(80, 8);
            let mut old = Peer::new(4000, 80);
            let socket = old.connect(&mut lab);
            if with_socket {
                // A segment beyond a hole is smoltcp's.
                let mut ahead = old.clone();
                ahead.sequence += 10;
                lab.exchange(&[ahead.data(b"late")]);
                lab.advance_ms(1000);
            } else {
                lab.exchange(&[old.data(b"GET /")]);
                assert_eq!(lab.events().len(), 1);
            }

            let mut new = Peer::new(4000, 80);
            new.sequence = old.sequence.wrapping_add(distance);
            let answers = lab.exchange(&[new.syn()]);
            assert_eq!(answers.len(), 1, "distance {distance:#x}, socket {with_socket}");
            let answer = parse(&answers[0]);
            assert_eq!(answer.control, TcpControl::None);
            assert_eq!(
                (answer.sequence, answer.acknowledgement),
                (old.acknowledgement, Some(old.sequence))
            );
            assert!(answer.window > 0, "a forged SYN must not stop the peer");
            assert!(
                lab.exchange(&[new.syn()]).is_empty(),
                "answers are limited in number"
            );
            assert!(lab.events().is_empty(), "a SYN alone ends nothing");

            let mut reset = new.clone();
            reset.sequence = old.sequence;
            assert!(lab.exchange(&[reset.segment(TcpControl::Rst, &[])]).is_empty());
            let events = lab.events();
            assert!(events.len() == 1 && events[0].closed && events[0].socket == socket);
            new.open(&mut lab);
            assert_eq!(accept(&lab).len(), 1);
            assert_eq!(lab.sockets.statistics().expect("up").connections, 1);
        }
    }
}

#[test]
fn nobody_listens() {
    let mut lab = Lab::new(CONFIG);
    let peer = Peer::new(4000, 81);
    let answers = lab.exchange(&[peer.syn()]);
    assert_eq!(parse(&answers[0]).control, TcpControl::Rst);
    assert_eq!(lab.sockets.statistics().expect("up").unclaimed, 1);
}

/// A SYN|ACK is sent again, the very same, when the peer repeats its SYN and when time passes; then the attempt is given up.
#[test]
fn half_open_connections_are_repeated_and_given_up() {
    let mut lab = Lab::new(CONFIG);
    lab.listen(80, 1);
    let peer = Peer::new(4000, 80);
    let first = lab.exchange(&[peer.syn()]);
    assert_eq!(lab.exchange(&[peer.syn()]), first);
    let dropped = lab.exchange(&[Peer::new(4001, 80).syn()]);
    assert!(dropped.is_empty(), "the backlog is one");
    assert_eq!(lab.sockets.statistics().expect("up").dropped_syn, 1);
    let mut repeats = 0;
    for _ in 0..40 {
        lab.advance_ms(1000);
        let again = lab.exchange(&[]);
        assert!(again.is_empty() || again == first);
        repeats += again.len();
    }
    assert_eq!(repeats, 4);
    assert_eq!(
        lab.exchange(&[Peer::new(4001, 80).syn()]).len(),
        1,
        "there is room again"
    );
}

#[test]
fn a_full_backlog_drops_silently_and_a_taken_connection_makes_room() {
    let mut lab = Lab::new(CONFIG);
    lab.listen(80, 4);
    for port in 4000..4004 {
        Peer::new(port, 80).open(&mut lab);
    }
    let mut late = Peer::new(4004, 80);
    assert!(lab.exchange(&[late.syn()]).is_empty());
    assert_eq!(accept(&lab).len(), 4);
    late.open(&mut lab);
    assert_eq!(accept(&lab).len(), 1);
}

/// Show 2 of the appliance: thousands of connections, each with its request answered.
#[test]
fn five_thousand_connections() {
    let config = CONFIG.replace(
        "connections = 8192",
        "connections = 5000\nmemory_bytes = 300000000",
    );
    let mut lab = Lab::new(&config);
    lab.listen(80, 8192);
    let mut peers: Vec<Peer> = (0..5000).map(|number| Peer::new(10_000 + number, 80)).collect();
    for peer in &mut peers {
        peer.open(&mut lab);
    }
    assert!(
        lab.exchange(&[Peer::new(9000, 80).syn()]).is_empty(),
        "the limit holds"
    );
    let mut sockets = Vec::new();
    while sockets.len() < 5000 {
        let some = accept(&lab);
        assert!(!some.is_empty());
        sockets.extend(some);
    }
    for peer in &mut peers {
        lab.exchange(&[peer.data(b"GET /")]);
    }
    let mut answered = 0;
    while answered < 5000 {
        let events = lab.events();
        assert!(!events.is_empty());
        for event in events.iter().filter(|event| event.readable) {
            assert_eq!(lab.receive(event.socket).0, b"GET /");
            assert_eq!(lab.send(event.socket, b"200 OK"), 6);
            answered += 1;
        }
    }
    let answers = lab.exchange(&[]);
    assert_eq!(answers.len(), 5000);
    for answer in &answers {
        let port = parse(answer).peer_port;
        assert_eq!(peers[usize::from(port - 10_000)].take(answer).payload, b"200 OK");
    }
    assert_eq!(lab.sockets.statistics().expect("up").connections, 5000);
    for socket in sockets {
        lab.sockets.abort(socket).expect("open");
    }
    assert_eq!(lab.exchange(&[]).len(), 5000);
    assert_eq!(lab.buffer_bytes(), 0);
}

#[test]
fn connects_after_asking_for_the_neighbour() {
    let mut lab = Lab::new(CONFIG);
    let socket = lab
        .sockets
        .connect(0, "10.82.99.20:7000".parse().expect("an address"))
        .expect("a way");
    let asked = lab.exchange(&[]);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0][12..14], [0x08, 0x06]);
    let mut reply = asked[0].clone();
    reply[..6].copy_from_slice(&lab::STACK_MAC);
    reply[6..12].copy_from_slice(&lab::PEER_MAC);
    reply[21] = 2;
    let (sender, target) = (asked[0][22..32].to_vec(), asked[0][32..42].to_vec());
    reply[22..32].copy_from_slice(&target);
    reply[22..28].copy_from_slice(&lab::PEER_MAC);
    reply[32..42].copy_from_slice(&sender);
    let syn = lab.exchange(&[reply]);
    assert_eq!(syn.len(), 1);
    let syn = parse(&syn[0]);
    assert_eq!(syn.control, TcpControl::Syn);
    let mut peer = Peer::new(7000, syn.port);
    peer.acknowledgement = syn.sequence + 1;
    let syn_ack = peer.segment(TcpControl::Syn, &[]);
    peer.sequence += 1;
    let answers = lab.exchange(&[syn_ack]);
    assert_eq!(parse(&answers[0]).acknowledgement, Some(peer.sequence));
    let events = lab.events();
    assert!(events.len() == 1 && events[0].writable && events[0].socket == socket);
    assert_eq!(lab.send(socket, b"hello"), 5);
    assert_eq!(peer.take(&lab.exchange(&[])[0]).payload, b"hello");
}

#[test]
fn sockets_of_a_dead_domain_are_reset() {
    let (mut lab, ..) = Lab::connected();
    let mut waiting = Peer::new(4001, 80);
    waiting.open(&mut lab);
    lab.sockets.bind_udp(0, 53).expect("a free port");
    lab.stack.shards[0].lock().close_owner(rref::caller());
    let answers = lab.exchange(&[]);
    assert_eq!(answers.len(), 2);
    assert!(
        answers
            .iter()
            .all(|answer| parse(answer).control == TcpControl::Rst)
    );
    assert_eq!(lab.sockets.statistics().expect("up").connections, 0);
    lab.listen(80, 8);
    lab.sockets.bind_udp(0, 53).expect("free again");
    assert!(lab.events().is_empty());
}

#[test]
fn verdicts_of_the_device_on_checksums_count() {
    let mut lab = Lab::new(CONFIG);
    lab.listen(80, 8);
    let mut syn = Peer::new(4000, 80).syn();
    syn[14 + 20 + 16] ^= 1;
    assert!(lab.exchange(&[syn.clone()]).is_empty());
    assert_eq!(lab.sockets.statistics().expect("up").bad_checksum, 1);
    lab.checksum = ChecksumState::Bad;
    assert!(lab.exchange(&[Peer::new(4000, 80).syn()]).is_empty());
    assert_eq!(lab.sockets.statistics().expect("up").bad_checksum, 2);
    lab.checksum = ChecksumState::Good;
    assert_eq!(lab.exchange(&[syn]).len(), 1);
}

/// With the checksum offload the frame has the pseudo-header's sum, so that summing the segment gives the right value.
#[test]
fn leaves_checksums_to_the_device() {
    let mut lab = Lab::with_device(CONFIG, 1, true);
    lab.listen(80, 8);
    for peer in [Peer::new(4000, 80), Peer::new_v6(4000, 80)] {
        let mut answer = lab.exchange(&[peer.syn()]).remove(0);
        let header = if peer.stack.is_ipv4() { 20 } else { 40 };
        let field = 14 + header + 16;
        let sum = !smoltcp::wire::checksum::data(&answer[14 + header..]);
        answer[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        if peer.stack.is_ipv4() {
            assert_eq!(answer[24..26], [0, 0]);
            netstack::transmit::fill_ipv4_checksum(&mut answer[14..34]);
        }
        assert_eq!(parse(&answer).control, TcpControl::Syn);
    }
}

/// A peer that is gone is noticed, one that answers is kept.
#[test]
fn silent_peers_are_asked_and_given_up() {
    let config = CONFIG.replace("[tcp]", "[tcp]\nkeep_alive_s = 10\ntimeout_s = 25");
    let mut lab = Lab::new(&config);
    lab.listen(80, 8);
    let mut living = Peer::new(4000, 80);
    let mut gone = Peer::new(4001, 80);
    living.open(&mut lab);
    gone.open(&mut lab);
    let sockets = accept(&lab);
    let mut asked = 0;
    for _ in 0..10 {
        lab.advance_ms(5000);
        for question in lab.exchange(&[]) {
            let question = parse(&question);
            if question.peer_port == 4000 {
                assert_eq!(question.sequence, living.acknowledgement - 1);
                asked += 1;
                lab.exchange(&[living.segment(TcpControl::None, &[])]);
            } else if question.control == TcpControl::Rst {
                gone.port = 0;
            }
        }
    }
    assert!(asked >= 4);
    assert_eq!(gone.port, 0, "reset");
    let events = lab.events();
    assert!(events.len() == 1 && events[0].closed && events[0].socket == sockets[1]);
    assert_eq!(lab.sockets.statistics().expect("up").connections, 1);
}
