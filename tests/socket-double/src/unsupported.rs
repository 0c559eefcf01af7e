//! The calls of a stack that has no such thing.

/// Writes the named methods of an `impl Sockets`, as a stack has them that doesn't offer this: what is to be done is refused, and to a question there is
/// nothing to tell. Methods that every player needs for itself are not to be had.
#[macro_export]
macro_rules! unsupported {
    (@ connect) => {
        fn connect(&self, _: u16, _: $crate::names::SocketAddr) -> $crate::names::Answer<$crate::names::SocketId> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ bind_udp) => {
        fn bind_udp(&self, _: u16, _: u16) -> $crate::names::Answer<$crate::names::SocketId> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ wait) => {
        fn wait(&self, _: u16, _: $crate::names::RRef<$crate::names::EventList>, _: u64) -> $crate::names::Answer<$crate::names::RRef<$crate::names::EventList>> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ wait_received) => {
        fn wait_received(&self, _: u16, _: $crate::names::RRef<$crate::names::EventList>, _: $crate::names::RRef<$crate::names::StreamBuffer>, _: u64) -> $crate::names::Answer<$crate::names::Arrived> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ send_many) => {
        fn send_many(&self, _: u16, _: &$crate::names::RRef<$crate::names::SendList>) -> $crate::names::Answer<u64> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ send_file) => {
        fn send_file(&self, _: $crate::names::SocketId, _: $crate::names::BootBytes) -> $crate::names::Answer<u32> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ send_to) => {
        fn send_to(&self, _: $crate::names::SocketId, _: $crate::names::SocketAddr, _: $crate::names::RRef<$crate::names::StreamBuffer>) -> $crate::names::Answer<$crate::names::RRef<$crate::names::StreamBuffer>> {
            Err($crate::names::SocketError::Invalid)
        }
    };
    (@ endpoints) => {
        fn endpoints(&self, _: $crate::names::SocketId) -> $crate::names::Answer<$crate::names::Endpoints> {
            Err($crate::names::SocketError::NotFound)
        }
    };
    (@ address) => {
        fn address(&self, _: u16) -> $crate::names::Answer<Option<($crate::names::IpAddr, u8)>> {
            Ok(None)
        }
    };
    (@ statistics) => {
        fn statistics(&self) -> $crate::names::Answer<$crate::names::SocketStatistics> {
            Ok($crate::names::SocketStatistics::default())
        }
    };
    ($($method:ident),+ $(,)?) => {
        $($crate::unsupported!(@ $method);)+
    };
}
