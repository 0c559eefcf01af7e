//! What the operator is told of updates, over a supervisor that is played.

use crate::tests::fixture;
use interface::kernel::DomainName;
use interface::update::{
    Build, DomainImages, ImageSource, UpdateError, UpdateOutcome, UpdateRecord, Updates,
};
use rref::Text;

/// One update of `ixgbe`, which was rolled back; those of others run.
pub struct Images;

fn update(number: u64, name: DomainName, outcome: UpdateOutcome) -> UpdateRecord {
    UpdateRecord {
        number,
        name,
        from: Some(Build::new("0.1.0+aa")),
        to: Build::new("0.2.0+bb"),
        source: ImageSource::Spare,
        at_ns: 5_000_000_000,
        restart_ns: 3_250_000,
        outcome,
    }
}

impl Updates for Images {
    fn images(&self, name: DomainName) -> Result<DomainImages, UpdateError> {
        Ok(DomainImages {
            current: Some(Build::new("0.1.0+aa")),
            previous: None,
            uploaded: (name.as_str() == "maglev").then(|| Build::new("0.3.0+cc")),
            has_spare: true,
            trial_ms: 10_000,
        })
    }

    fn update(&self, name: DomainName, _source: Option<ImageSource>) -> Result<UpdateRecord, UpdateError> {
        match name.as_str() {
            "ixgbe" => Ok(update(1, name, UpdateOutcome::Starting)),
            "maglev" => Ok(update(2, name, UpdateOutcome::Starting)),
            "init" => Err(UpdateError::Supervisor),
            _ => Err(UpdateError::NoDomain),
        }
    }

    fn record(&self, number: u64) -> Result<Option<UpdateRecord>, UpdateError> {
        Ok(match number {
            1 => Some(update(
                1,
                DomainName::new("ixgbe"),
                UpdateOutcome::RolledBack(Text::new("panic: at lib.rs:1")),
            )),
            2 => Some(update(
                2,
                DomainName::new("maglev"),
                UpdateOutcome::OnTrial { until_ns: u64::MAX },
            )),
            _ => None,
        })
    }

    fn count(&self) -> Result<u64, UpdateError> {
        Ok(2)
    }
}

#[test]
fn an_update_says_what_became_of_it() {
    let mut fixture = fixture();
    let mut answer = |line: &str| fixture.session.answer(line);
    let said = answer("update maglev");
    assert!(
        said.starts_with("maglev runs build 0.2.0+bb in place of 0.1.0+aa, after 3.250 ms without it."),
        "{said}"
    );
    assert_eq!(
        answer("update ixgbe spare"),
        "Build 0.2.0+bb of ixgbe failed (panic: at lib.rs:1); the one before is back."
    );
    assert!(answer("update init").starts_with("The supervisor can't be updated"));
    assert_eq!(answer("update httpd"), "There is no domain of this name.");
    let table = answer("updates");
    assert!(table.contains("rolled back: panic: at lib.rs:1"), "{table}");
    assert!(table.ends_with("2 of 2 updates since boot"), "{table}");
    let json = fixture.json("updates --json");
    assert_eq!(json["images"][1]["uploaded"], "0.3.0+cc");
    assert_eq!(json["updates"][0]["outcome"], "trial");
    assert_eq!(json["updates"][1]["reason"], "panic: at lib.rs:1");
}
