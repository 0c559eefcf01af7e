//! INFO: the server as monitoring tools read it.

use super::admin::{VERSION, readable};
use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::config::Durability;
use crate::error::CommandError;
use crate::keyspace::DATABASES;
use crate::server::{Phase, Server};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The table.
pub const COMMANDS: &[Command] = &[command(
    "info",
    -1,
    Flags::LOADING.union(Flags::STALE),
    NO_KEYS,
    info,
)];

type Section = (&'static str, fn(&Server, &mut String));

/// Sections that INFO shows by itself.
const SECTIONS: &[Section] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", statistics),
    ("Replication", replication),
    ("CPU", processors),
    ("Modules", |_, _| {}),
    ("Errorstats", errors),
    ("Cluster", |_, text| text.push_str("cluster_enabled:0\r\n")),
    ("Keyspace", keyspace),
];

/// Sections that are shown when they are asked for.
const MORE: &[Section] = &[("Commandstats", commands)];

fn info(context: &mut Context<'_>) -> Result<(), CommandError> {
    let wanted: Vec<Vec<u8>> = context
        .arguments
        .from(1)
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    let is_asked = |name: &str| {
        wanted
            .iter()
            .any(|wanted| name.as_bytes().eq_ignore_ascii_case(wanted))
    };
    let everything = is_asked("all") || is_asked("everything");
    let usual = wanted.is_empty() || is_asked("default") || everything;
    let mut text = String::new();
    let mut show = |section: &Section, by_itself: bool| {
        if by_itself || is_asked(section.0) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {}\r\n", section.0);
            (section.1)(context.server, &mut text);
        }
    };
    for section in SECTIONS {
        if section.0 == "Keyspace" {
            for more in MORE {
                show(more, everything);
            }
        }
        show(section, usual);
    }
    context.reply.verbatim(text.as_bytes());
    Ok(())
}

macro_rules! line {
    ($text:ident, $name:literal, $value:expr) => {
        let _ = write!($text, concat!($name, ":{}\r\n"), $value);
    };
}

fn server(server: &Server, text: &mut String) {
    let up_s = server.keyspace.now_ms.saturating_sub(server.started_ms) / 1000;
    line!(text, "redis_version", VERSION);
    line!(text, "redis_git_sha1", "00000000");
    line!(text, "redis_mode", "standalone");
    line!(text, "os", "RedLeaf appliance");
    line!(text, "arch_bits", 64);
    line!(text, "multiplexing_api", "netstack");
    line!(text, "process_id", 1);
    line!(text, "run_id", server.run_id);
    line!(text, "tcp_port", server.config.port);
    line!(text, "server_time_usec", server.keyspace.now_ms * 1000);
    line!(text, "uptime_in_seconds", up_s);
    line!(text, "uptime_in_days", up_s / 86_400);
    line!(text, "hz", 10);
    line!(text, "configured_hz", 10);
    line!(text, "lru_clock", (server.keyspace.now_ms / 1000) & 0xff_ffff);
    line!(text, "executable", "/domains/kv-server");
    line!(text, "config_file", "");
}

fn clients(server: &Server, text: &mut String) {
    let subscribers = server
        .clients
        .iter()
        .filter(|(_, client)| client.is_subscriber())
        .count();
    let (input, output) = server
        .clients
        .iter()
        .fold((0, 0), |(input, output), (_, client)| {
            (
                input.max(client.input_bytes),
                output.max(client.output.len() + client.unsent_bytes),
            )
        });
    line!(text, "connected_clients", server.clients.len());
    line!(text, "cluster_connections", 0);
    line!(text, "maxclients", server.config.client_limit);
    line!(text, "client_recent_max_input_buffer", input);
    line!(text, "client_recent_max_output_buffer", output);
    line!(
        text,
        "blocked_clients",
        server.waiting_count() + server.paused_count()
    );
    line!(text, "tracking_clients", 0);
    line!(text, "pubsub_clients", subscribers);
    line!(text, "clients_in_timeout_table", server.waiting_count());
}

fn memory(server: &Server, text: &mut String) {
    let used = server.keyspace.used_bytes as u64;
    let peak = used.max(server.statistics.peak_bytes as u64);
    line!(text, "used_memory", used);
    line!(text, "used_memory_human", readable(used));
    line!(text, "used_memory_rss", used);
    line!(text, "used_memory_rss_human", readable(used));
    line!(text, "used_memory_peak", peak);
    line!(text, "used_memory_peak_human", readable(peak));
    line!(text, "used_memory_dataset", used);
    line!(text, "maxmemory", server.config.maximum_memory_bytes);
    line!(
        text,
        "maxmemory_human",
        readable(server.config.maximum_memory_bytes)
    );
    line!(text, "maxmemory_policy", "noeviction");
    line!(text, "mem_fragmentation_ratio", "1.00");
    line!(text, "mem_allocator", "dlmalloc");
    line!(
        text,
        "lazyfree_pending_objects",
        u8::from(server.keyspace.has_remains())
    );
}

fn persistence(server: &Server, text: &mut String) {
    let loading = match server.phase {
        Phase::Loading(percent) => Some(percent),
        _ => None,
    };
    let failed = matches!(server.phase, Phase::WriteFailed(_));
    line!(text, "loading", u8::from(loading.is_some()));
    line!(text, "async_loading", 0);
    line!(text, "rdb_changes_since_last_save", server.keyspace.dirty);
    line!(text, "rdb_bgsave_in_progress", 0);
    line!(text, "rdb_last_save_time", server.keyspace.now_ms / 1000);
    line!(text, "rdb_last_bgsave_status", "ok");
    line!(text, "rdb_last_load_keys_loaded", server.loaded.keys);
    line!(text, "aof_enabled", u8::from(server.ledger.has_store()));
    line!(text, "aof_rewrite_in_progress", 0);
    line!(text, "aof_rewrite_scheduled", 0);
    line!(text, "aof_last_bgrewrite_status", "ok");
    line!(text, "aof_last_write_status", if failed { "err" } else { "ok" });
    line!(text, "aof_pending_bytes", server.ledger.kept_bytes());
    if let Some(percent) = loading {
        line!(text, "loading_loaded_perc", format_args!("{percent}.00"));
    }
    line!(
        text,
        "appendfsync",
        match server.config.durability {
            Durability::Always => "always",
            Durability::EverySecond => "everysec",
            Durability::No => "no",
        }
    );
}

fn statistics(server: &Server, text: &mut String) {
    let counters = &server.statistics;
    line!(text, "total_connections_received", counters.connections);
    line!(text, "total_commands_processed", counters.commands);
    line!(text, "total_net_input_bytes", counters.received_bytes);
    line!(text, "total_net_output_bytes", counters.sent_bytes);
    line!(text, "rejected_connections", counters.rejected);
    line!(text, "expired_keys", server.keyspace.expired);
    line!(text, "evicted_keys", 0);
    line!(text, "evicted_clients", 0);
    line!(text, "keyspace_hits", counters.hits);
    line!(text, "keyspace_misses", counters.misses);
    line!(text, "pubsub_channels", server.pubsub.channels.len());
    line!(text, "pubsub_patterns", server.pubsub.patterns.len());
    line!(text, "pubsubshard_channels", server.pubsub.shard_channels.len());
    line!(text, "latest_fork_usec", 0);
    line!(
        text,
        "client_output_buffer_limit_disconnections",
        counters.output_limit
    );
    line!(text, "total_error_replies", counters.errors);
    line!(text, "unexpected_error_replies", 0);
}

fn replication(server: &Server, text: &mut String) {
    line!(text, "role", "master");
    line!(text, "connected_slaves", 0);
    line!(text, "master_failover_state", "no-failover");
    line!(text, "master_replid", server.run_id);
    line!(text, "master_repl_offset", 0);
}

fn processors(_server: &Server, text: &mut String) {
    line!(text, "used_cpu_sys", "0.000000");
    line!(text, "used_cpu_user", "0.000000");
}

fn commands(server: &Server, text: &mut String) {
    for (command, counters) in server.table.iter().zip(&server.statistics.by_command) {
        if counters.calls + counters.rejected > 0 {
            let _ = write!(
                text,
                "cmdstat_{}:calls={},usec=0,usec_per_call=0.00,rejected_calls={},failed_calls={}\r\n",
                command.name, counters.calls, counters.rejected, counters.failed
            );
        }
    }
}

fn errors(server: &Server, text: &mut String) {
    for (code, count) in &server.statistics.by_error {
        let _ = write!(text, "errorstat_{code}:count={count}\r\n");
    }
}

fn keyspace(server: &Server, text: &mut String) {
    for number in 0..DATABASES {
        if let Some(database) = server.keyspace.database(number)
            && !database.keys.is_empty()
        {
            let _ = write!(
                text,
                "db{number}:keys={},expires={},avg_ttl={}\r\n",
                database.keys.len(),
                database.expiring_count(),
                database.average_ttl_ms(server.keyspace.now_ms)
            );
        }
    }
}
