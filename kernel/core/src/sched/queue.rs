//! One CPU's run queue: runnable threads in round-robin order, and sleeping threads by their deadline.
//!
//! It never allocates while threads are queued or woken: [`RunQueue::reserve`] makes room for one more thread
//! before that thread exists, and a thread is at most once in either list.

use crate::time::NEVER;
use alloc::{collections::VecDeque, vec::Vec};

/// How long a thread runs before another runnable one gets its turn. Short, since the supervisor of a dead driver waits that long for a
/// busy packet thread; it costs a switch each time, and only while somebody waits.
pub const SLICE_NS: u64 = 2_000_000;

/// The same for a thread that runs as soon as it is woken: what it is woken for, a restart most of all, takes less, so that nobody's slice comes in
/// between.
pub const PROMPT_SLICE_NS: u64 = 10_000_000;

/// The runnable and the sleeping threads of one CPU; the running one is in neither list.
pub struct RunQueue<T> {
    ready: VecDeque<T>,
    /// Latest deadline first, so that the next one to expire is at the end.
    timers: Vec<(u64, T)>,
}

impl<T: Copy + PartialEq> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + PartialEq> RunQueue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            timers: Vec::new(),
        }
    }

    /// Makes room for `threads` threads in all.
    pub fn reserve(&mut self, threads: usize) {
        self.ready.reserve(threads.saturating_sub(self.ready.len()));
        self.timers.reserve(threads.saturating_sub(self.timers.len()));
    }

    /// Appends a runnable thread.
    pub fn push(&mut self, thread: T) {
        self.ready.push_back(thread);
    }

    /// Puts a runnable thread before all others.
    pub fn push_first(&mut self, thread: T) {
        self.ready.push_front(thread);
    }

    /// Puts a runnable thread before all others but the one whose turn it is.
    pub fn push_second(&mut self, thread: T) {
        let at = self.ready.len().min(1);
        self.ready.insert(at, thread);
    }

    /// Puts a runnable thread behind the first of those that `is_counted` holds for, or at the end if there is none.
    pub fn push_behind_first(&mut self, thread: T, is_counted: impl Fn(T) -> bool) {
        let first = self.ready.iter().position(|&other| is_counted(other));
        let at = first.map_or(self.ready.len(), |at| at + 1);
        self.ready.insert(at, thread);
    }

    /// Moves a runnable thread before all others; false if it isn't one.
    pub fn move_first(&mut self, thread: T) -> bool {
        let Some(at) = self.ready.iter().position(|other| *other == thread) else {
            return false;
        };
        self.ready.remove(at);
        self.ready.push_front(thread);
        true
    }

    /// Takes the thread whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// Whether a thread waits for its turn.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Starts a timer; [`NEVER`] starts none.
    pub fn start_timer(&mut self, deadline_ns: u64, thread: T) {
        if deadline_ns != NEVER {
            let at = self.timers.partition_point(|&(other, _)| other > deadline_ns);
            self.timers.insert(at, (deadline_ns, thread));
        }
    }

    /// Stops the thread's timer, if it has one.
    pub fn stop_timer(&mut self, thread: T) {
        if let Some(at) = self.timers.iter().rposition(|&(_, other)| other == thread) {
            self.timers.remove(at);
        }
    }

    /// Takes a thread whose deadline has come.
    pub fn pop_expired(&mut self, now_ns: u64) -> Option<T> {
        let &(deadline, thread) = self.timers.last()?;
        (deadline <= now_ns).then(|| {
            self.timers.pop();
            thread
        })
    }

    /// When the CPU has to be interrupted at the latest: for the next timer, or for the end of the running
    /// thread's slice if another one waits. [`NEVER`] if nothing has to happen.
    pub fn next_event(&self, slice_end_ns: u64) -> u64 {
        let timer = self.timers.last().map_or(NEVER, |&(deadline, _)| deadline);
        if self.has_ready() {
            timer.min(slice_end_ns)
        } else {
            timer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_slice_ends_only_when_another_thread_waits() {
        let mut queue = RunQueue::new();
        assert_eq!(queue.next_event(50), NEVER);
        queue.start_timer(80, 1);
        assert_eq!(queue.next_event(50), 80);
        queue.push(2);
        assert_eq!(queue.next_event(50), 50);
    }

    #[test]
    fn a_thread_that_is_put_first_is_taken_first() {
        let mut queue = RunQueue::new();
        queue.push('a');
        queue.push_first('b');
        queue.push('c');
        assert_eq!(
            core::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(),
            ['b', 'a', 'c']
        );
    }

    #[test]
    fn a_thread_that_is_put_second_waits_for_one() {
        let mut queue = RunQueue::new();
        queue.push_second('a');
        queue.push('b');
        queue.push_second('c');
        assert_eq!(
            core::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(),
            ['a', 'c', 'b']
        );
    }

    #[test]
    fn a_thread_that_is_put_behind_the_first_of_a_kind_passes_the_rest() {
        let mut queue = RunQueue::new();
        queue.push('A');
        queue.push('b');
        queue.push('c');
        queue.push_behind_first('D', |other| other.is_lowercase());
        queue.push_behind_first('E', |other| other == 'x');
        assert_eq!(
            core::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(),
            ['A', 'b', 'D', 'c', 'E']
        );
    }

    #[test]
    fn a_thread_that_is_moved_is_in_the_queue_once() {
        let mut queue = RunQueue::new();
        queue.push('a');
        queue.push('b');
        assert!(queue.move_first('b'));
        assert!(!queue.move_first('c'));
        assert_eq!(
            core::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(),
            ['b', 'a']
        );
    }

    #[test]
    fn a_stopped_timer_does_not_expire() {
        let mut queue = RunQueue::new();
        queue.start_timer(10, 'a');
        queue.start_timer(10, 'b');
        queue.start_timer(NEVER, 'c');
        queue.stop_timer('a');
        assert_eq!(queue.pop_expired(9), None);
        assert_eq!(queue.pop_expired(10), Some('b'));
        assert_eq!(queue.pop_expired(NEVER), None);
    }

    proptest! {
        /// Timers expire in the order of their deadlines, and none before its time.
        #[test]
        fn timers_expire_in_order(deadlines in proptest::collection::vec(0u64..1000, 0..40), now in 0u64..1000) {
            let mut queue = RunQueue::new();
            for (thread, &deadline) in deadlines.iter().enumerate() {
                queue.start_timer(deadline, thread);
            }
            let expired: Vec<_> = core::iter::from_fn(|| queue.pop_expired(now)).map(|t| deadlines[t]).collect();
            prop_assert!(expired.is_sorted());
            prop_assert_eq!(expired.len(), deadlines.iter().filter(|&&d| d <= now).count());
        }
    }
}
