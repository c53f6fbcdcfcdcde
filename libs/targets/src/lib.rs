//! What each runtime takes, as data (`data/*.yaml`, embedded): formats, number formats, operators and limits. The plan
//! refuses recipes by it at admission, the optimizer makes artefacts by it, and the linter holds a model against it line
//! by line. Pure: it reads no file and knows no model format; models come as a neutral [`View`].

mod target;
mod recipe;
mod view;
mod facts;
mod lint;

pub use lint::{Condition, Operators, Otherwise, Rule, Word, lint};
pub use recipe::{BLOCK_SIZES, Numbers, Recipe, RecipeError, needs_calibration, reads_calibration};
pub use target::{
    Compiler, Int4Form, Int4Rules, Int8Rules, Int16Rules, Integer, InterfaceType, RuntimeKind, Schemes, Support, Target,
};
pub use view::{Attribute, Operator, Tensor, View};
