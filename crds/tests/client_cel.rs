//! The same cases without a server: where client-side CEL agrees, and where it is known not to.

mod table;

use kube::core::cel::Validator;
use table::{Check, Request, Verdict};

#[test]
fn client_cel_agrees_except_where_pinned() {
    let schemas: Vec<_> = edgeyard_crds::generate::all()
        .iter()
        .map(|crd| (crd.spec.names.singular.clone().unwrap_or_default(), edgeyard_crds::generate::schema(crd)))
        .collect();
    let mut wrong = vec![];
    for case in table::cases() {
        let (before, after) = case.objects();
        let (_, schema) = schemas.iter().find(|(name, _)| *name == case.object).expect("a kind of ours");
        let old = (case.on != Request::Create).then_some(&before);
        let result = Validator::new().validate(schema, &after, old);
        let verdict = if result.is_ok() { Verdict::Accepts } else { Verdict::Rejects };
        let expected = match (case.client, case.by) {
            (Some(pinned), _) => pinned,
            (None, Check::Schema) => Verdict::Accepts,
            (None, Check::Cel) => case.server(),
        };
        if verdict != expected {
            wrong.push(format!("{}: {verdict:?}: {result:?}", case.name));
        } else if let (Err(errors), Some(message), Check::Cel) = (&result, &case.message, case.by) {
            let text = message.rsplit(": ").next().unwrap_or_default();
            if !errors.iter().any(|e| e.message.contains(text)) {
                wrong.push(format!("{}: other message: {errors}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
