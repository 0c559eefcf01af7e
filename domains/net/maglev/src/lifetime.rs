//! How long a flow is remembered: what a packet of the client's does to its flow's state and deadline.
//!
//! The balancer sees only the client's half of a connection, so the states are coarse: opening, established, closing. All
//! combinations of state and event are worked out once a second, so that forwarding looks the answer up.

use crate::connection_table::{FlowState, Life, Tick};
use crate::packet::{Protocol, TcpFlags};

/// How long an idle flow is remembered, in seconds, at most
/// [`LONGEST_TIMEOUT_SECONDS`](crate::connection_table::LONGEST_TIMEOUT_SECONDS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TCP connection of which only SYNs were seen.
    pub tcp_opening_seconds: u16,
    /// An established TCP connection.
    pub tcp_established_seconds: u16,
    /// A TCP connection whose client has sent FIN or RST.
    pub tcp_closing_seconds: u16,
    /// A UDP flow.
    pub udp_seconds: u16,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening_seconds: 60,
            tcp_established_seconds: 1_800,
            tcp_closing_seconds: 60,
            udp_seconds: 60,
        }
    }
}

/// What a packet means to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// TCP, and nothing special.
    Segment = 0,
    /// TCP: FIN or RST.
    Closes = 1,
    /// UDP.
    Datagram = 2,
    /// TCP: a SYN without ACK.
    Opens = 3,
}

const EVENTS: [Event; 4] = [Event::Segment, Event::Closes, Event::Datagram, Event::Opens];
const STATES: [Option<FlowState>; 4] = [
    None,
    Some(FlowState::Opening),
    Some(FlowState::Established),
    Some(FlowState::Closing),
];

impl Event {
    /// The event that a packet is.
    #[inline(always)]
    #[must_use]
    pub fn of(protocol: Protocol, flags: TcpFlags) -> Self {
        match protocol {
            Protocol::Udp => Self::Datagram,
            Protocol::Tcp if flags.closes() => Self::Closes,
            Protocol::Tcp if flags.opens() => Self::Opens,
            Protocol::Tcp => Self::Segment,
        }
    }
}

/// A flow's state after an event; `None` is a flow that isn't remembered.
fn next_state(state: Option<FlowState>, event: Event) -> FlowState {
    match (state, event) {
        (_, Event::Datagram) => FlowState::Established,
        (Some(FlowState::Closing), _) | (_, Event::Closes) => FlowState::Closing,
        // A repeated SYN, or a stray one that the backend will challenge (RFC 9293 section 3.10.7.4).
        (Some(state), Event::Opens) => state,
        (None, Event::Opens) => FlowState::Opening,
        // Also the middle of a connection that this balancer didn't see the beginning of.
        (_, Event::Segment) => FlowState::Established,
    }
}

/// The lives that flows get at one moment, by their state and an event.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    lives: [Life; 16],
    now: Tick,
}

impl Lives {
    /// Works out all of them.
    #[must_use]
    pub fn new(timeouts: &Timeouts, now: Tick) -> Self {
        let mut lives = [Life::default(); 16];
        let cases = EVENTS
            .iter()
            .flat_map(|&event| STATES.iter().map(move |&state| (state, event)));
        for (life, (state, event)) in lives.iter_mut().zip(cases) {
            let next = next_state(state, event);
            let timeout = match (event, next) {
                (Event::Datagram, _) => timeouts.udp_seconds,
                (_, FlowState::Opening) => timeouts.tcp_opening_seconds,
                (_, FlowState::Established) => timeouts.tcp_established_seconds,
                (_, FlowState::Closing) => timeouts.tcp_closing_seconds,
            };
            // A life that has just begun is never over: `is_fresh` rests on that.
            *life = Life::new(next, now, timeout.max(1));
        }
        Self { lives, now }
    }

    /// The moment that these lives begin.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// The life of a remembered flow after an event.
    #[inline(always)]
    #[must_use]
    pub fn after(&self, life: Life, event: Event) -> Life {
        // Two bits each, so the index is below 16.
        self.lives[(event as usize) << 2 | life.state_number()]
    }

    /// Whether an event leaves a flow's life as it is: then the flow is remembered and alive, since no event leaves it otherwise.
    #[inline(always)]
    #[must_use]
    pub fn is_fresh(&self, life: Life, event: Event) -> bool {
        self.after(life, event) == life
    }

    /// The life of a flow that begins with an event.
    #[inline(always)]
    #[must_use]
    pub fn first(&self, event: Event) -> Life {
        self.after(Life::default(), event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_states() {
        let mut state = None;
        for (flags, expected) in [
            (0x02, FlowState::Opening),
            (0x02, FlowState::Opening),
            (0x10, FlowState::Established),
            (0x02, FlowState::Established),
            (0x18, FlowState::Established),
            (0x11, FlowState::Closing),
            (0x10, FlowState::Closing),
        ] {
            let next = next_state(state, Event::of(Protocol::Tcp, TcpFlags(flags)));
            assert_eq!(next, expected);
            state = Some(next);
        }
        assert_eq!(
            next_state(None, Event::of(Protocol::Tcp, TcpFlags(0x04))),
            FlowState::Closing
        );
        assert_eq!(
            next_state(None, Event::of(Protocol::Tcp, TcpFlags(0x12))),
            FlowState::Established
        );
        assert_eq!(
            next_state(None, Event::of(Protocol::Udp, TcpFlags(0))),
            FlowState::Established
        );
    }

    /// The table that forwarding looks into says what the rules say.
    #[test]
    fn the_table_is_the_rules() {
        let (timeouts, now) = (Timeouts::default(), Tick::default());
        let lives = Lives::new(&timeouts, now);
        for event in EVENTS {
            for state in STATES {
                let life = state.map_or(Life::default(), |state| Life::new(state, now, 1));
                let after = lives.after(life, event);
                assert_eq!(after.state(), Some(next_state(state, event)));
                assert!(!lives.is_fresh(life, event), "its end is another");
                assert_eq!(lives.is_fresh(after, event), lives.after(after, event) == after);
            }
        }
        assert_eq!(lives.first(Event::Opens), Life::new(FlowState::Opening, now, 60));
        assert_eq!(
            lives.first(Event::Segment),
            Life::new(FlowState::Established, now, 1_800)
        );
        assert_eq!(
            lives.first(Event::Datagram),
            Life::new(FlowState::Established, now, 60)
        );
    }
}
