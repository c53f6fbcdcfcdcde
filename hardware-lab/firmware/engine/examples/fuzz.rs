//! Loads and runs damaged models for a while: `cargo run --release --example fuzz -- SECONDS SEED MODEL.tflite…`. Ends with an error
//! if the engine ever wrote outside its arena; a panic or a signal says the rest. Prints how many models it tried.

use edgeyard_engine::Engine;
use std::time::{Duration, Instant};

/// xorshift64*: enough to pick bytes.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below.max(1)
    }
}

fn damage(model: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.next(8) {
        let at = random.next(model.len());
        match random.next(6) {
            0 => model[at] ^= 1 << random.next(8),
            1 => model[at] = [0, 1, 0x7f, 0x80, 0xff][random.next(5)],
            2 => model[at..].iter_mut().take(4).for_each(|b| *b = 0xff),
            3 => model[at..].iter_mut().take(4).for_each(|b| *b = random.next(256) as u8),
            4 => {
                let from = random.next(model.len());
                let word: Vec<u8> = model[from..].iter().take(4).copied().collect();
                model[at..].iter_mut().zip(word).for_each(|(b, w)| *b = w);
            }
            _ => model.truncate(at.max(8)),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const GUARD: usize = 4096;
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().ok_or("usage: fuzz SECONDS SEED MODEL…")?.parse()?;
    let mut random = Random(arguments.next().ok_or("usage: fuzz SECONDS SEED MODEL…")?.parse::<u64>()? | 1);
    let corpus = arguments.map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let mut memory = vec![0xA5u8; (1 << 20) + 2 * GUARD];
    let end = memory.len() - GUARD;
    let (started, mut tried, mut loaded) = (Instant::now(), 0u64, 0u64);
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut model = corpus.get(random.next(corpus.len())).ok_or("no models given")?.clone();
        damage(&mut model, &mut random);
        if let Ok(mut engine) = Engine::load(&model, &mut memory[GUARD..end]) {
            engine.run();
            loaded += 1;
        }
        if memory[..GUARD].iter().chain(&memory[end..]).any(|b| *b != 0xA5) {
            return Err(format!("model {tried} made the engine write outside its arena").into());
        }
        tried += 1;
    }
    println!("{tried} damaged models in {seconds} s, {loaded} of them loaded and ran; none escaped");
    Ok(())
}
