//! The serial console: one command typed by a script, or a person at a terminal.

use std::io::{ErrorKind, IsTerminal, Read, Write, stdin, stdout};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// How long the shell may take to show its prompt when asked for one.
const PROMPT_PATIENCE: Duration = Duration::from_secs(5);
/// Silence after which what looks like a prompt is one.
const SILENCE: Duration = Duration::from_millis(150);
/// The same where it is known how a prompt looks: only an answer that stops for so long at a copy of it would be cut.
const BRIEF_SILENCE: Duration = Duration::from_millis(10);
/// Ctrl-A, which begins an escape from the terminal.
const ESCAPE: u8 = 0x01;

/// Types a command at the serial shell and returns what it printed, without echo and prompt.
///
/// The prompt is whatever the shell shows after an empty line, so nothing here depends on its text. Two empty lines are typed: what comes
/// twice is the whole of it, without a long wait for more.
///
/// # Errors
/// When the console can't be reached, shows no prompt, or the command doesn't end within `limit`.
pub fn run_command(socket: &Path, command: &str, limit: Duration) -> Result<String> {
    let mut console = Console::open(socket)?;
    console.type_line("\r")?;
    let Some(prompt) = console.read_until(PROMPT_PATIENCE, prompt_in)? else {
        bail!("the serial console shows no prompt")
    };
    console.text.clear();
    console.type_line(command)?;
    let output = console.read_until(limit, |text| {
        Some((output_before(text, &prompt, command)?, BRIEF_SILENCE))
    })?;
    output.with_context(|| {
        format!(
            "`{command}` didn't end within {:.0} s; so far:\n{}",
            limit.as_secs_f64(),
            console.text
        )
    })
}

struct Console {
    stream: UnixStream,
    /// What has come since the last command, without escape sequences and carriage returns.
    text: String,
    filter: EscapeFilter,
}

impl Console {
    fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("the serial console {} can't be reached", socket.display()))?;
        Ok(Self {
            stream,
            text: String::new(),
            filter: EscapeFilter::default(),
        })
    }

    fn type_line(&mut self, line: &str) -> Result<()> {
        self.stream
            .write_all(format!("{line}\r").as_bytes())
            .context("the serial console is gone")
    }

    /// Reads until `found` gives a result and nothing more comes for as long as it says, or the time is over.
    fn read_until<T>(
        &mut self,
        limit: Duration,
        found: impl Fn(&str) -> Option<(T, Duration)>,
    ) -> Result<Option<T>> {
        let until = Instant::now() + limit;
        let mut buffer = [0; 4096];
        let mut result = None;
        while Instant::now() < until {
            let silence = result.as_ref().map_or(SILENCE, |(_, silence)| *silence);
            self.stream.set_read_timeout(Some(silence))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the serial console was closed"),
                Ok(length) => {
                    for byte in buffer.get(..length).unwrap_or_default() {
                        self.text.extend(self.filter.pass(*byte));
                    }
                    result = found(&self.text);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if result.is_some() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the serial console is gone"),
            }
        }
        Ok(result.map(|(result, _)| result))
    }
}

/// Drops what moves the cursor or sets colours, so that only the text stays.
#[derive(Default)]
struct EscapeFilter {
    state: EscapeState,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum EscapeState {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl EscapeFilter {
    fn pass(&mut self, byte: u8) -> Option<char> {
        let (next, output) = match (self.state, byte) {
            (_, 0x1b) => (EscapeState::Escape, None),
            (EscapeState::Escape, b'[') => (EscapeState::Sequence, None),
            // ECMA-48, section 5.4: a control sequence ends with a byte of columns 4 to 7.
            (EscapeState::Sequence, 0x40..=0x7e) | (EscapeState::Escape, _) => (EscapeState::Text, None),
            (EscapeState::Sequence, _) => (EscapeState::Sequence, None),
            (EscapeState::Text, b'\n' | b'\t' | 0x20..=0x7e) => (EscapeState::Text, Some(char::from(byte))),
            (EscapeState::Text, 0x80..) => (EscapeState::Text, Some('·')),
            (EscapeState::Text, _) => (EscapeState::Text, None),
        };
        self.state = next;
        output
    }
}

/// The last line as the prompt, and how long nothing must follow until it counts: hardly at all when the line before it is the same.
fn prompt_in(text: &str) -> Option<(String, Duration)> {
    let mut lines = text.rsplit('\n');
    let last = lines.next().filter(|line| !line.trim().is_empty())?;
    let is_whole = lines.next() == Some(last);
    Some((last.to_owned(), if is_whole { BRIEF_SILENCE } else { SILENCE }))
}

/// What was printed between the echo of the command and the next prompt, once that is there.
fn output_before(text: &str, prompt: &str, command: &str) -> Option<String> {
    let body = text.strip_suffix(prompt)?;
    // Before the echo, or on its line, may be the prompt of an empty line; without the echo the prompt seen is the one that the command was typed at.
    let echo = body.find(command)?;
    let (_, output) = body.get(echo..)?.split_once('\n')?;
    (output.is_empty() || output.ends_with('\n')).then(|| output.trim_end_matches('\n').to_owned())
}

/// Joins this terminal with the console until Ctrl-A X or the machine's end.
///
/// # Errors
/// When the console can't be reached or the terminal can't be set.
pub fn attach(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("the serial console {} can't be reached", socket.display()))?;
    let _raw = RawTerminal::enter()?;
    let mut typed = stream.try_clone()?;
    if stdin().is_terminal() {
        // What the shell showed before is gone; an empty line brings its prompt.
        typed.write_all(b"\r")?;
    }
    // Ends with the process: a read from the terminal can't be cut short.
    thread::spawn(move || {
        let _ = pass_typed(&mut typed);
        let _ = typed.shutdown(Shutdown::Both);
    });
    show(stream)
}

fn show(mut stream: UnixStream) -> Result<()> {
    let mut buffer = [0; 4096];
    let mut terminal = stdout();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                terminal.write_all(buffer.get(..length).unwrap_or_default())?;
                terminal.flush()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("the serial console is gone"),
        }
    }
}

/// Passes keys on until Ctrl-A X; Ctrl-A Ctrl-A types one Ctrl-A. At the end of input without a terminal, as in a pipe, it
/// waits for the machine's end instead.
fn pass_typed(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut escaped = false;
    for byte in stdin().lock().bytes() {
        let byte = byte?;
        match (escaped, byte) {
            (true, b'x' | b'X') => return Ok(()),
            (false, ESCAPE) => escaped = true,
            _ => {
                stream.write_all(&[byte])?;
                escaped = false;
            }
        }
    }
    loop {
        thread::park();
    }
}

/// The terminal without line editing and echo, which are the shell's at the other end; as before when dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(stdin()).context("the terminal's settings can't be read")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("the terminal can't be set")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A shell of a few lines: echoes what is typed, answers, prompts in colour.
    fn shell(listener: &UnixListener, answer: &str) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            if byte[0] != b'\r' {
                line.push(char::from(byte[0]));
                let _ = stream.write_all(&byte);
                continue;
            }
            let said = if line.is_empty() {
                String::new()
            } else {
                format!("{answer}\r\n")
            };
            let _ = stream.write_all(format!("\r\n{said}\x1b[32mbox\x1b[0m> ").as_bytes());
            line.clear();
        }
    }

    fn with_shell(answer: &'static str, command: &str) -> Result<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serial");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || shell(&listener, answer));
        run_command(&path, command, Duration::from_secs(10))
    }

    #[test]
    fn output_comes_without_echo_prompt_and_colours() {
        let output = with_shell("name   state\r\n\x1b[1mixgbe\x1b[0m  running", "domains").unwrap();
        assert_eq!(output, "name   state\nixgbe  running");
    }

    #[test]
    fn a_prompt_that_comes_twice_needs_no_long_silence() {
        let silence = |text| prompt_in(text).map(|(prompt, silence)| (prompt, silence == BRIEF_SILENCE));
        let prompt = |is_whole| Some(("box> ".to_owned(), is_whole));
        assert_eq!(silence("said before\nbox> \nbox> "), prompt(true));
        assert_eq!(silence("said before\nbox> "), prompt(false));
        assert_eq!(silence("box> \nbo"), Some(("bo".to_owned(), false)));
        assert_eq!(silence("box> \n"), None);
    }

    #[test]
    fn a_prompt_that_is_late_is_no_output() {
        let output = |text| output_before(text, "box> ", "domains");
        assert_eq!(output("\nbox> domains\nixgbe\nbox> ").as_deref(), Some("ixgbe"));
        assert_eq!(output("\nbox> doma"), None);
        assert_eq!(output("\nbox> "), None);
        // In the midst of a line it is none.
        assert_eq!(output("domains\nthe box> "), None);
        assert_eq!(output("domains\nbox> ").as_deref(), Some(""));
    }

    #[test]
    fn output_that_holds_the_prompt_is_not_cut() {
        assert_eq!(
            with_shell("box> is not\r\nthe end", "help").unwrap(),
            "box> is not\nthe end"
        );
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(run_command(Path::new("/nonexistent/serial"), "help", SILENCE).is_err());
    }
}
