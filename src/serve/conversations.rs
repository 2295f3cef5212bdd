//! Streams that outlive their readers: a chat request with `X-Conversation-Id` goes on when its client has gone, and what it
//! said can be read again from any byte, as in llama-server. Each key has conversations of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::abort::Abort;

/// Bytes kept of one conversation; older ones are lost.
const MOST_BYTES: usize = 4 << 20;
/// How long a conversation can be read after its end.
const KEPT: Duration = Duration::from_secs(300);
/// Conversations that have ended and can be read.
const MOST_ENDED: usize = 64;
/// Bytes of one chunk for a reader, and chunks that may wait for it.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 16;
/// Bytes of an id.
pub const MOST_ID: usize = 512;

/// One conversation's stream.
pub struct Conversation {
    owner: u64,
    id: String,
    started: u64,
    abort: Abort,
    said: Mutex<Said>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Said {
    bytes: VecDeque<u8>,
    /// Bytes that are lost before those.
    dropped: usize,
    ended: Option<(Instant, u64)>,
    stopped: bool,
}

/// What there is from an offset on.
enum After {
    Bytes(Bytes),
    Wait,
    End,
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Conversation {
    /// Ends the requests behind it.
    pub fn abort(&self) -> &Abort {
        &self.abort
    }

    /// Whether someone has stopped it.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Adds to what is said. False when it was stopped.
    pub fn say(&self, text: &[u8]) -> bool {
        let mut said = self.lock();
        if said.ended.is_some() {
            return false;
        }
        said.bytes.extend(text);
        let excess = said.bytes.len().saturating_sub(MOST_BYTES);
        said.bytes.drain(..excess);
        said.dropped += excess;
        drop(said);
        self.changed.send_replace(());
        true
    }

    /// Nothing more is said.
    pub fn end(&self) {
        self.lock().ended.get_or_insert_with(|| (Instant::now(), seconds()));
        self.changed.send_replace(());
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.abort.abort();
        self.end();
    }

    /// All that is said from an offset on, now and later; nothing when that is lost. To be called where tasks can be spawned.
    pub fn read(self: &Arc<Self>, from: usize) -> Option<mpsc::Receiver<Bytes>> {
        if from < self.lock().dropped {
            return None;
        }
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let (conversation, mut changed, mut offset) = (self.clone(), self.changed.subscribe(), from);
        tokio::spawn(async move {
            loop {
                changed.borrow_and_update();
                match conversation.after(offset) {
                    After::Bytes(bytes) => {
                        offset += bytes.len();
                        if sender.send(bytes).await.is_err() {
                            return;
                        }
                    }
                    After::End => return,
                    After::Wait => tokio::select! {
                        _ = changed.changed() => (),
                        () = sender.closed() => return,
                    },
                }
            }
        });
        Some(chunks)
    }

    fn after(&self, offset: usize) -> After {
        let said = self.lock();
        // A reader who was too slow has lost something: its stream ends.
        let Some(at) = offset.checked_sub(said.dropped) else { return After::End };
        if at < said.bytes.len() {
            let to = said.bytes.len().min(at + CHUNK);
            return After::Bytes(said.bytes.range(at..to).copied().collect::<Vec<u8>>().into());
        }
        if said.ended.is_some() { After::End } else { After::Wait }
    }

    fn describe(&self) -> Value {
        let said = self.lock();
        json!({
            "conversation_id": self.id,
            "is_done": said.ended.is_some(),
            "total_bytes": said.dropped + said.bytes.len(),
            "started_at": self.started,
            "completed_at": said.ended.map_or(0, |(_, at)| at),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a conversation when it is dropped: held by whoever speaks.
pub struct Speaking(pub Arc<Conversation>);

impl Drop for Speaking {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// All conversations, the oldest first.
#[derive(Default)]
pub struct Conversations(Mutex<Vec<Arc<Conversation>>>);

impl Conversations {
    /// Begins one; an earlier one with the same id is stopped and forgotten.
    pub fn begin(&self, owner: u64, id: &str) -> Arc<Conversation> {
        self.stop(owner, id);
        let new = Arc::new(Conversation {
            owner,
            id: id.to_owned(),
            started: seconds(),
            abort: Abort::default(),
            said: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        self.current().push(new.clone());
        new
    }

    /// The one with this id.
    pub fn find(&self, owner: u64, id: &str) -> Option<Arc<Conversation>> {
        self.current().iter().find(|c| c.owner == owner && c.id == id).cloned()
    }

    /// Stops one, if there is one, and forgets it.
    pub fn stop(&self, owner: u64, id: &str) {
        let found = self.find(owner, id);
        if let Some(conversation) = found {
            conversation.stop();
            self.forget(&conversation);
        }
    }

    /// Forgets one.
    pub fn forget(&self, conversation: &Arc<Conversation>) {
        self.current().retain(|c| !Arc::ptr_eq(c, conversation));
    }

    /// Those with one of these ids, or with `ID::MODEL`.
    pub fn look_up(&self, owner: u64, ids: &[String]) -> Value {
        let all = self.current();
        let is = |own: &str, asked: &str| own.strip_prefix(asked).is_some_and(|r| r.is_empty() || r.starts_with("::"));
        let mut found = Vec::new();
        for id in ids.iter().filter(|id| !id.is_empty()) {
            found.extend(all.iter().filter(|c| c.owner == owner && is(&c.id, id)).map(|c| c.describe()));
        }
        found.into()
    }

    /// What can still be read.
    fn current(&self) -> MutexGuard<'_, Vec<Arc<Conversation>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|c| c.lock().ended.is_none_or(|(at, _)| at.elapsed() < KEPT));
        let ended = all.iter().filter(|c| c.lock().ended.is_some()).count();
        let mut excess = ended.saturating_sub(MOST_ENDED);
        all.retain(|c| {
            let goes = excess > 0 && c.lock().ended.is_some();
            excess -= usize::from(goes);
            !goes
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut chunks: mpsc::Receiver<Bytes>) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            out.extend_from_slice(&chunk);
        }
        out
    }

    #[tokio::test]
    async fn what_was_said_is_read_from_any_byte_while_it_is_kept() {
        let conversations = Conversations::default();
        let c = conversations.begin(1, "a::m");
        let early = c.read(0).expect("from the beginning");
        assert!(c.say(b"hello ") && c.say(b"world"));
        let late = c.read(6).expect("from the middle");
        c.end();
        assert!(!c.say(b"more"), "after the end");
        assert_eq!((all(early).await, all(late).await), (b"hello world".to_vec(), b"world".to_vec()));
        assert!(conversations.find(2, "a::m").is_none(), "another key has none");
        assert_eq!(conversations.look_up(1, &["a".into(), "x".into(), String::new()])[0]["total_bytes"], 11);
        assert_eq!(conversations.look_up(2, &["a".into()]), json!([]));
        let next = conversations.begin(1, "a::m");
        next.say(&vec![b'x'; MOST_BYTES]);
        next.say(b"end");
        assert!(next.read(2).is_none(), "lost");
        next.end();
        assert!(all(next.read(3).expect("the rest")).await.ends_with(b"xend"));
    }

    #[tokio::test]
    async fn stopping_ends_readers_and_the_newest_endings_are_kept() {
        let conversations = Conversations::default();
        let c = conversations.begin(0, "a");
        let reader = c.read(0).expect("from the beginning");
        conversations.stop(0, "a");
        assert!(c.is_stopped() && c.abort().is_aborted() && all(reader).await.is_empty());
        assert!(conversations.find(0, "a").is_none());
        let first = conversations.begin(0, "running");
        for n in 0..MOST_ENDED + 3 {
            conversations.begin(0, &n.to_string()).end();
        }
        assert!(conversations.find(0, "2").is_none() && conversations.find(0, "3").is_some());
        assert!(conversations.find(0, "running").is_some_and(|c| Arc::ptr_eq(&c, &first)), "what runs stays");
    }
}
