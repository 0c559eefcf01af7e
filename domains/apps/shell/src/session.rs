//! The dialogue with the operator.
//!
//! The log goes to the serial port by itself while nobody types. From the first key on it is held back, so that it disturbs
//! neither a person nor a script that reads answers; what was written meanwhile is shown once the keyboard has been quiet.

use crate::answer::{Answer, sentence};
use crate::command::{self, Command, Request};
use crate::completion::{self, Wanted};
use crate::import::Import;
use crate::keys::{Decoder, Key};
use crate::line::{Event, Line};
use crate::log_view::{self, LogView};
use crate::table::span;
use crate::{
    death_report, disk, disk_bench, disk_verify, domains, holdings, kv, network, nvme, update, usage,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use domain_rt::clock::{self, NEVER};
use domain_rt::{Handle, thread};
use interface::balance::{Balancer, Name};
use interface::black_box::BlackBoxes;
use interface::block::BlockDevice;
use interface::kernel::{DomainName, LogReader, Power, SerialConsole, ServiceError};
use interface::key_value::KeyValueStore;
use interface::net::NetDevice;
use interface::partition::Disks;
use interface::socket::Sockets;
use interface::storage_health::StorageHealth;
use interface::supervise::{Operator, Supervisor};
use interface::update::Updates;
use rref::Text;

/// What the shell shows when it waits for a command.
pub const PROMPT: &str = "redleaf> ";
/// Quiet time at the keyboard after which the log is shown again, nanoseconds.
const QUIET_NS: u64 = 3_000_000_000;
/// Bytes that one write to the console takes.
const WRITE_BYTES: usize = 512;
/// Pause after a failed read, milliseconds.
const ERROR_PAUSE_MS: u64 = 100;

/// The shell's state.
pub struct Session {
    console: Handle<dyn SerialConsole>,
    power: Handle<dyn Power>,
    log: LogView,
    supervisor: Import<dyn Supervisor>,
    operator: Import<dyn Operator>,
    updates: Import<dyn Updates>,
    black_boxes: Import<dyn BlackBoxes>,
    nic: Import<dyn NetDevice>,
    storage: Import<dyn StorageHealth>,
    disks: Import<dyn Disks>,
    partitions: Import<dyn BlockDevice>,
    store: Import<dyn KeyValueStore>,
    sockets: Import<dyn Sockets>,
    balancer: Import<dyn Balancer>,
    decoder: Decoder,
    line: Line,
    /// Somebody types: the log is held back.
    typing: bool,
}

impl Session {
    /// A session at this console.
    pub fn new(
        console: Handle<dyn SerialConsole>,
        log: Handle<dyn LogReader>,
        power: Handle<dyn Power>,
    ) -> Session {
        Session {
            console,
            power,
            log: LogView::new(log),
            supervisor: Import::new("supervisor", "The supervisor"),
            operator: Import::new("operator", "The supervisor"),
            updates: Import::new("updates", "The supervisor"),
            black_boxes: Import::new("black_boxes", "The kernel"),
            nic: Import::new("nic", "The network card"),
            storage: Import::new("storage", "The storage controller's driver"),
            disks: Import::new("disks", "The partitions' domain"),
            partitions: Import::new("partitions", "The partitions' domain"),
            store: Import::new("store", "The key-value store"),
            sockets: Import::new("sockets", "The TCP/IP stack"),
            balancer: Import::new("balancer", "The load balancer"),
            decoder: Decoder::default(),
            line: Line::default(),
            typing: false,
        }
    }

    /// Answers the operator for the domain's life.
    pub fn run(mut self) {
        // An earlier shell may have died while it held the log back.
        let begun = self.console.show_log(true).and_then(|()| {
            self.write(&format!(
                "\nThis is RedLeaf. `help` shows the commands.\n{PROMPT}"
            ))
        });
        if let Err(error) = begun {
            log::warn!("the console: {error}");
        }
        loop {
            if let Err(error) = self.serve() {
                log::warn!("the console: {error}");
                thread::sleep_ms(ERROR_PAUSE_MS);
            }
        }
    }

    /// Waits for input or for quiet, and does what is to be done.
    pub fn serve(&mut self) -> Result<(), ServiceError> {
        let deadline_ns = match self.typing {
            true => clock::now_ns().saturating_add(QUIET_NS),
            false => NEVER,
        };
        let (count, bytes) = self.console.read(deadline_ns)?;
        let bytes = bytes.get(..usize::from(count)).unwrap_or(&bytes);
        if bytes.is_empty() {
            return self.become_quiet();
        }
        if !self.typing {
            self.begin_typing()?;
        }
        for byte in bytes {
            if let Some(key) = self.decoder.key(*byte) {
                self.key(key)?;
            }
        }
        Ok(())
    }

    fn begin_typing(&mut self) -> Result<(), ServiceError> {
        self.typing = true;
        self.console.show_log(false)?;
        if self.log.skip()? {
            // The log went over the prompt.
            self.draw_line()?;
        }
        Ok(())
    }

    fn become_quiet(&mut self) -> Result<(), ServiceError> {
        if !self.typing {
            return Ok(());
        }
        let mut any = false;
        // Line by line: the whole ring as one text would be a heap that the shell keeps for good.
        while let Some(line) = self.log.unseen()? {
            self.write(&format!("\r\x1b[K{}\n", log_view::show(&line)))?;
            any = true;
        }
        if any {
            self.draw_line()?;
        }
        self.typing = false;
        self.console.show_log(true)
    }

    fn draw_line(&self) -> Result<(), ServiceError> {
        let mut text = String::new();
        self.line.draw(PROMPT, &mut text);
        self.write(&text)
    }

    fn key(&mut self, key: Key) -> Result<(), ServiceError> {
        let mut echo = String::new();
        let event = self.line.key(key, PROMPT, &mut echo);
        self.write(&echo)?;
        match event {
            Event::Edited | Event::Cleared => Ok(()),
            Event::Complete => self.complete(),
            Event::Cancelled => self.write(PROMPT),
            Event::Entered(line) => {
                let answer = self.answer(&line);
                if !answer.is_empty() {
                    self.write(&answer)?;
                    self.write("\n")?;
                }
                self.write(PROMPT)
            }
        }
    }

    /// What is to be said to a line; errors are sentences.
    pub fn answer(&mut self, line: &str) -> String {
        let request = match command::parse(line) {
            Ok(Some(request)) => request,
            Ok(None) => return String::new(),
            Err(error) => return error,
        };
        let Request { command, json } = request;
        let lasts_s = match &command {
            Command::DiskBench(plan) => Some(plan.seconds),
            Command::DiskVerify(plan) => Some(plan.seconds),
            _ => None,
        };
        if let (Some(seconds), false) = (lasts_s, json) {
            // There is nothing to see for a while.
            self.write(&format!("this takes {seconds} s\n")).ok();
        }
        match self.execute(command) {
            Ok(answer) => answer.render(json),
            Err(error) => error,
        }
    }

    fn execute(&mut self, command: Command) -> Result<Answer, String> {
        match command {
            Command::Help(name) => usage::help(name.as_deref()).map(Answer::text),
            Command::Domains => domains::show(&mut self.supervisor, &mut self.updates),
            Command::Deaths(count) => domains::deaths(&mut self.supervisor, count),
            Command::Death(number) => death_report::show(&mut self.supervisor, &mut self.black_boxes, number),
            Command::Memory => domains::memory(&mut self.supervisor),
            Command::Domain(name) => domains::one(&mut self.supervisor, name),
            Command::Holdings => holdings::show(&mut self.supervisor),
            Command::Leaks => holdings::leaks(&mut self.operator),
            Command::Kill(name) => {
                self.operator.call(|operator| operator.kill(name))?;
                Ok(Answer::text(format!("{name} is killed.")))
            }
            Command::KillSupervisor => {
                self.write("killing the supervisor: the machine restarts\n")
                    .map_err(|error| sentence(&error.to_string()))?;
                self.operator.call(|operator| operator.kill_supervisor())?;
                Err("The supervisor was killed.".into())
            }
            Command::Stop(name) => {
                self.operator.call(|operator| operator.stop(name))?;
                domains::done(
                    &mut self.supervisor,
                    name,
                    format!("{name} is stopped; `start {name}` starts it."),
                )
            }
            Command::Start(name) => {
                let generation = self.operator.call(|operator| operator.start(name))?;
                self.is_up(name, "started", generation)
            }
            Command::Restart(name) => {
                let generation = self.operator.call(|operator| operator.restart(name))?;
                self.is_up(name, "restarted", generation)
            }
            Command::Release(name) => {
                let generation = self.operator.call(|operator| operator.release(name))?;
                self.is_up(name, "released", generation)
            }
            Command::Update(name, source) => update::update(&mut self.updates, name, source),
            Command::Updates => update::show(&mut self.supervisor, &mut self.updates),
            Command::Nic => network::nic(&mut self.nic),
            Command::Nvme(view) => nvme::answer(&mut self.storage, view),
            Command::Disk => disk::show(&mut self.disks),
            Command::DiskChange(change) => disk::carry_out(&mut self.disks, change),
            Command::DiskBench(plan) => disk_bench::answer(&mut self.partitions, plan),
            Command::DiskVerify(plan) => disk_verify::answer(&mut self.partitions, plan),
            Command::Kv(request) => kv::answer(&mut self.store, request),
            Command::Ip => network::ip(&mut self.sockets),
            Command::Maglev => network::maglev(&mut self.balancer),
            Command::MaglevChange {
                service,
                backend,
                change,
            } => network::change(&mut self.balancer, service, backend, change),
            Command::Log(count) => {
                let lines = self
                    .log
                    .newest(count)
                    .map_err(|error| sentence(&error.to_string()))?;
                let lines: Vec<String> = lines.iter().map(log_view::show).collect();
                Ok(Answer::text(lines.join("\n")))
            }
            Command::Uptime => Ok(Answer::text(format!("up {}", span(clock::now_ns())))),
            Command::Reboot => self.switch("restarting", |power| power.reboot()),
            Command::PowerOff => self.switch("switching off", |power| power.power_off()),
        }
    }

    fn is_up(&mut self, name: DomainName, what: &str, generation: u64) -> Result<Answer, String> {
        let text = format!("{name} is {what}: generation {generation} runs.");
        domains::done(&mut self.supervisor, name, text)
    }

    fn switch(
        &mut self,
        doing: &str,
        switch: impl FnOnce(&Handle<dyn Power>) -> Result<(), ServiceError>,
    ) -> Result<Answer, String> {
        // Said first: there is no time after.
        let said = self.write(&format!("{doing}\n"));
        nvme::shut_down(&mut self.storage);
        said.and_then(|()| switch(&self.power))
            .map_err(|error| sentence(&error.to_string()))?;
        Err("The machine did not do it.".into())
    }

    fn complete(&mut self) -> Result<(), ServiceError> {
        let before = self.line.before_cursor().to_string();
        let (wanted, partial) = completion::wanted(&before);
        // A domain that can't be asked has no names to offer.
        let names = match wanted {
            Wanted::Words(words) => words.iter().map(|word| String::from(*word)).collect(),
            Wanted::Command => completion::commands(),
            Wanted::Domain => domains::list(&mut self.supervisor)
                .unwrap_or_default()
                .iter()
                .map(|status| status.domain.name.to_string())
                .collect(),
            Wanted::Service => network::services(&mut self.balancer)
                .unwrap_or_default()
                .iter()
                .map(|service| service.name.to_string())
                .collect(),
            Wanted::Backend(service) => network::backends(&mut self.balancer, Name::new(service))
                .unwrap_or_default()
                .iter()
                .map(|backend| backend.name.to_string())
                .collect(),
            Wanted::Nothing => Vec::new(),
        };
        let completion = completion::complete(partial, names);
        let mut echo = String::new();
        if !completion.choices.is_empty() {
            echo += &format!("\n{}\n", completion.choices.join("  "));
            self.line.draw(PROMPT, &mut echo);
        } else if completion.insert.is_empty() {
            echo += "\x07";
        }
        self.line.insert(&completion.insert, PROMPT, &mut echo);
        self.write(&echo)
    }

    /// Writes text with the line ends of a terminal.
    fn write(&self, text: &str) -> Result<(), ServiceError> {
        let text = text.replace('\n', "\r\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let piece: Text<WRITE_BYTES> = Text::new(rest);
            self.console.write(piece)?;
            // `Text` takes at least one character.
            rest = rest.get(piece.as_str().len()..).unwrap_or("");
        }
        Ok(())
    }
}
