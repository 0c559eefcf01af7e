//! What `/metrics` says of deaths: how many by domain and cause, and how long the domains were away.

use crate::metrics::{Exposition, Kind};
use core::fmt::{self, Display};
use interface::black_box::{DURATION_BOUNDS_NS, DeathCounts, Durations};
use interface::kernel::{DeathCause, DomainName};

/// A domain's deaths.
pub type DomainDeaths = (DomainName, DeathCounts);

/// Writes the families. Causes and times that never were are left out.
pub fn deaths(text: &mut Exposition, domains: &[DomainDeaths]) {
    text.family(
        "redleaf_domain_deaths_total",
        Kind::Counter,
        "Deaths since boot, by cause.",
    );
    for (domain, counts) in domains {
        for (cause, count) in DeathCause::LABELS.iter().zip(counts.causes) {
            if count > 0 {
                let labels: [(&str, &dyn Display); 2] = [("domain", domain), ("cause", cause)];
                text.sample("redleaf_domain_deaths_total", &labels, count);
            }
        }
    }
    let restarts = domains.iter().map(|(domain, counts)| (domain, &counts.restarts));
    times(
        text,
        "restart",
        "a death to the running of the next incarnation",
        restarts,
    );
    let outages = domains.iter().map(|(domain, counts)| (domain, &counts.outages));
    times(
        text,
        "outage",
        "a death to the successor's first work, as the shadow saw it",
        outages,
    );
}

/// A histogram of durations, and the last one of each domain.
fn times<'a>(
    text: &mut Exposition,
    what: &str,
    from_to: &str,
    domains: impl Iterator<Item = (&'a DomainName, &'a Durations)> + Clone,
) {
    let domains = domains.filter(|(_, durations)| durations.count > 0);
    let name = alloc::format!("redleaf_domain_{what}_seconds");
    text.family(&name, Kind::Histogram, &alloc::format!("From {from_to}."));
    for (domain, durations) in domains.clone() {
        let mut below = 0;
        let bucket = alloc::format!("{name}_bucket");
        for (bound_ns, count) in DURATION_BOUNDS_NS.iter().zip(durations.buckets) {
            below += count;
            let labels: [(&str, &dyn Display); 2] = [("domain", domain), ("le", &Seconds(*bound_ns))];
            text.sample(&bucket, &labels, below);
        }
        let labels: [(&str, &dyn Display); 2] = [("domain", domain), ("le", &"+Inf")];
        text.sample(&bucket, &labels, durations.count);
        let labels: [(&str, &dyn Display); 1] = [("domain", domain)];
        text.sample(&alloc::format!("{name}_sum"), &labels, Seconds(durations.sum_ns));
        text.sample(&alloc::format!("{name}_count"), &labels, durations.count);
    }
    let last = alloc::format!("redleaf_domain_last_{what}_seconds");
    text.family(
        &last,
        Kind::Gauge,
        &alloc::format!("The last one from {from_to}."),
    );
    for (domain, durations) in domains {
        text.sample(&last, &[("domain", domain)], Seconds(durations.last_ns));
    }
}

/// Nanoseconds as a decimal number of seconds, without needless zeroes.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = alloc::format!("{rest:09}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn buckets_add_up_and_what_never_was_is_left_out() {
        let mut counts = DeathCounts::default();
        for (cause, took_ns) in [
            (DeathCause::Panic, 900_000),
            (DeathCause::Panic, 3_000_000),
            (DeathCause::Exception(14), 20_000_000_000),
        ] {
            counts.add(cause);
            counts.restarts.add(took_ns);
        }
        let mut text = Exposition::default();
        let domains = [
            (DomainName::new("ixgbe"), counts),
            (DomainName::new("httpd"), DeathCounts::default()),
        ];
        deaths(&mut text, &domains);
        let text: String = text.into_text();
        for line in [
            "redleaf_domain_deaths_total{domain=\"ixgbe\",cause=\"panic\"} 2",
            "redleaf_domain_deaths_total{domain=\"ixgbe\",cause=\"exception\"} 1",
            "redleaf_domain_restart_seconds_bucket{domain=\"ixgbe\",le=\"0.001\"} 1",
            "redleaf_domain_restart_seconds_bucket{domain=\"ixgbe\",le=\"0.002\"} 1",
            "redleaf_domain_restart_seconds_bucket{domain=\"ixgbe\",le=\"0.005\"} 2",
            "redleaf_domain_restart_seconds_bucket{domain=\"ixgbe\",le=\"10\"} 2",
            "redleaf_domain_restart_seconds_bucket{domain=\"ixgbe\",le=\"+Inf\"} 3",
            "redleaf_domain_restart_seconds_sum{domain=\"ixgbe\"} 20.0039",
            "redleaf_domain_restart_seconds_count{domain=\"ixgbe\"} 3",
            "redleaf_domain_last_restart_seconds{domain=\"ixgbe\"} 20",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("killed") && !text.contains("httpd"), "{text}");
        assert!(
            !text.contains("outage_seconds_sum"),
            "nobody measured one\n{text}"
        );
    }
}
