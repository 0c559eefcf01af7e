//! What was measured, as a table or as JSON. Names and units in the JSON don't change: scripts depend on them.

use std::fmt;

use serde_json::{Value, json};

/// Instructions of nginx on Linux for a request of the same file over the same connections, measured before in the same
/// kind of virtual machine (docs/specification.md); instructions moved less than 2 % between runs.
const LINUX_HTTP: f64 = 34_000.0;
/// Instructions of Linux' IPVS (Maglev hashing, direct routing) for a 64-byte UDP packet, likewise.
const LINUX_VIP: f64 = 6_500.0;
/// Budgets (docs/specification.md).
const BUDGET_HTTP: f64 = 3_400.0;
const BUDGET_VIP: f64 = 500.0;

/// The idle appliance.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    pub instructions_per_second: f64,
}

/// HTTP requests.
#[derive(Clone, Copy, Debug)]
pub struct Http {
    pub connections: u32,
    pub requests: u64,
    pub instructions_per_request: f64,
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Packets to a VIP.
#[derive(Clone, Copy, Debug)]
pub struct Udp {
    pub sent: u64,
    pub forwarded: u64,
    pub instructions_per_packet: f64,
    pub offered_per_second: f64,
    pub forwarded_per_second: f64,
}

/// Everything.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub cpus: u32,
    pub idle: Idle,
    pub http: Http,
    pub udp: Udp,
}

impl Report {
    /// One object with every figure and its unit.
    pub fn to_json(self) -> Value {
        let figure = |value: f64, unit: &str| json!({ "value": value, "unit": unit });
        let judged = |value: f64, unit: &str, linux: f64, budget: f64| {
            json!({
                "value": value,
                "unit": unit,
                "budget": budget,
                "within_budget": value <= budget,
                "peer": { "value": linux, "unit": unit, "measured": "before, on Linux in the same virtual machine" },
            })
        };
        let (http, udp) = (self.http, self.udp);
        json!({
            "cpus": self.cpus,
            "idle": { "instructions": figure(self.idle.instructions_per_second, "instructions/s") },
            "http": {
                "connections": http.connections,
                "requests": http.requests,
                "instructions": judged(http.instructions_per_request, "instructions/request", LINUX_HTTP, BUDGET_HTTP),
                "rate": figure(http.requests_per_second, "requests/s"),
                "latency_p50": figure(http.p50_ms, "ms"),
                "latency_p99": figure(http.p99_ms, "ms"),
            },
            "vip": {
                "sent": udp.sent,
                "forwarded": udp.forwarded,
                "instructions": judged(udp.instructions_per_packet, "instructions/packet", LINUX_VIP, BUDGET_VIP),
                "offered": figure(udp.offered_per_second, "packets/s"),
                "rate": figure(udp.forwarded_per_second, "packets/s"),
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, udp) = (&self.http, &self.udp);
        let verdict = |value: f64, budget: f64| {
            if value <= budget {
                "within budget"
            } else {
                "OVER BUDGET"
            }
        };
        writeln!(
            formatter,
            "{} CPUs; instructions are the appliance's own, idle ones subtracted",
            self.cpus
        )?;
        writeln!(
            formatter,
            "idle                 {:>10.0} instructions/s",
            self.idle.instructions_per_second
        )?;
        writeln!(
            formatter,
            "HTTP, 612 bytes      {:>10.0} instructions/request   budget {BUDGET_HTTP:.0}, Linux (nginx) {LINUX_HTTP:.0}: {}",
            http.instructions_per_request,
            verdict(http.instructions_per_request, BUDGET_HTTP)
        )?;
        writeln!(
            formatter,
            "                     {:>10.0} requests/s over {} connections, p50 {:.2} ms, p99 {:.2} ms",
            http.requests_per_second, http.connections, http.p50_ms, http.p99_ms
        )?;
        writeln!(
            formatter,
            "VIP, 64-byte UDP     {:>10.0} instructions/packet    budget {BUDGET_VIP:.0}, Linux (IPVS) {LINUX_VIP:.0}: {}",
            udp.instructions_per_packet,
            verdict(udp.instructions_per_packet, BUDGET_VIP)
        )?;
        writeln!(
            formatter,
            "                     {:>10.0} packets/s forwarded of {:.0} offered",
            udp.forwarded_per_second, udp.offered_per_second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_unit_and_the_budgets_are_judged() {
        let report = Report {
            cpus: 2,
            idle: Idle {
                instructions_per_second: 1000.0,
            },
            http: Http {
                connections: 20,
                requests: 10,
                instructions_per_request: 3000.0,
                requests_per_second: 5.0,
                p50_ms: 1.0,
                p99_ms: 2.0,
            },
            udp: Udp {
                sent: 10,
                forwarded: 9,
                instructions_per_packet: 501.0,
                offered_per_second: 10.0,
                forwarded_per_second: 9.0,
            },
        };
        let object = report.to_json();
        assert_eq!(object["http"]["instructions"]["within_budget"], true);
        assert_eq!(object["vip"]["instructions"]["within_budget"], false);
        assert_eq!(object["vip"]["rate"]["unit"], "packets/s");
        assert!(report.to_string().contains("OVER BUDGET"));
    }
}
