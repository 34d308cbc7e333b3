//! What the shell is told to do, where FerretDB does not keep MongoDB's rules: the same script by the same shell, against a
//! stub that keeps them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::tools;

const STUB: &str = include_str!("stub.js");
const SCRIPT: &str = include_str!("../../src/engine/mongodb/ask.js");

/// Runs one request at a server that holds what `holds` puts into `store`; gives all that was printed, last what `then` prints.
fn run(holds: &str, request: &str, then: &str) -> String {
    let script = format!(
        "{STUB}\n{holds}\nconst uri = 'mongodb://stub';\nconst request = {request};\n{SCRIPT}\n\
         print(EJSON.stringify({then}, {{ relaxed: true }}));\n"
    );
    let mut shell = Command::new(tools().join("mongosh"));
    shell.args(["--quiet", "--norc", "--nodb", "--eval", "load('/dev/stdin'); void 0"]);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{failed}");
    said.trim().to_owned()
}

fn last(said: &str) -> &str {
    said.lines().last().unwrap()
}

/// The views of a backup: `a_top` on `m_mid` on the collection `z`.
const VIEWS: &str = r#"[
    { "name": "a_top", "metadata": "{\"options\":{\"viewOn\":\"m_mid\",\"pipeline\":[{\"$match\":{\"n\":{\"$numberInt\":\"1\"}}}]}}" },
    { "name": "m_mid", "metadata": "{\"options\":{\"viewOn\":\"z\",\"pipeline\":[],\"collation\":{\"locale\":\"de\"}}}" }
]"#;

#[test]
fn views_are_made_again_when_the_collections_are_in_their_places() {
    // Where `a_top` was a collection and `z` a view; the old `m_mid` was on `a_top`, which is to be on `m_mid`.
    let holds = "store.old = { docs: [], uuid: 'o' }; store.a_top = { docs: [{ _id: 9 }], uuid: 'a' };
        store.m_mid = { viewOn: 'a_top', pipeline: [] }; store.z = { viewOn: 'old', pipeline: [] };
        store.__restoring_0badcafe_z = { docs: [{ _id: 1 }], uuid: 'z' };
        store.__restoring_marker_0badcafe = { docs: [{ _id: 'claim', of: 'shop' }], uuid: 'm' };";
    let request = format!(
        r#"{{ action: "swap", database: "shop", hex: "0badcafe", again: false, views: {VIEWS},
            collections: [{{ name: "z", identity: "z"}}] }}"#
    );
    let said = run(holds, &request, "[store, said]");
    assert!(said.contains("voxeltron-answer:{}"), "{said}");
    assert_eq!(
        last(&said),
        r#"[{"z":{"docs":[{"_id":1}],"uuid":"z"},"a_top":{"viewOn":"m_mid","pipeline":[{"$match":{"n":1}}],"collation":null},"m_mid":{"viewOn":"z","pipeline":[],"collation":{"locale":"de"}}},["rename __restoring_0badcafe_z z","view a_top on m_mid","view m_mid on z"]]"#
    );
}

#[test]
fn an_exchange_that_was_stopped_among_the_views_is_finished() {
    let planned = format!("{{ _id: 'plan', names: ['z'], extras: ['old'], views: {VIEWS} }}");
    let holds = format!(
        "store.z = {{ docs: [{{ _id: 1 }}], uuid: 'z' }}; store.a_top = {{ viewOn: 'm_mid', pipeline: [] }};
         store.__restoring_marker_0badcafe = {{ docs: [{{ _id: 'claim', of: 'shop' }}, {planned}], uuid: 'm' }};"
    );
    let request = r#"{ action: "begin", of: "shop", into: "shop", in_place: true, hex: "11111111", dead: [], ended: [], lapse: 1, since: "now" }"#;
    // The mark of the new restore is what follows; the old one's is gone with its plan.
    let holds = format!(
        "{holds}\nconst real = shop.getCollection; shop.getCollection = (name) => ({{ ...real(name), updateOne: () => ({{}}) }});"
    );
    let said = run(&holds, request, "Object.keys(store)");
    assert!(said.contains("finished a restore"), "{said}");
    assert_eq!(last(&said), r#"["z","a_top","m_mid"]"#);
}

#[test]
fn a_view_that_can_t_be_made_is_noticed_before_the_exchange() {
    let holds = "store.__restoring_0badcafe_z = { docs: [{ _id: 1 }], uuid: 'z' };
        const real = shop.runCommand; shop.runCommand = (it) => (it.collation ? refuse('this collation') : real(it));";
    let request = |views: &str| {
        format!(r#"{{ action: "loaded", database: "shop", prefix: "__restoring_0badcafe_", views: {views} }}"#)
    };
    let said = run(holds, &request("[]"), "Object.keys(store)");
    assert!(said.contains(r#"{"name":"z","identity":"z","documents":1,"indexes":["_id_"]}"#), "{said}");
    let one = r#"[{ "name": "v", "metadata": "{\"options\":{\"viewOn\":\"z\",\"pipeline\":[]}}" }]"#;
    let said = run(holds, &request(one), "[Object.keys(store), said]");
    assert_eq!(
        last(&said),
        r#"[["__restoring_0badcafe_z"],["view __restoring_0badcafe_v on z"]]"#,
        "tried and taken away"
    );
    let failing = std::panic::catch_unwind(|| run(holds, &request(VIEWS), "0")).unwrap_err();
    assert!(failing.downcast_ref::<String>().is_some_and(|said| said.contains("this collation")));
}

#[test]
fn numbers_and_dates_in_a_view_stay_what_they_are() {
    let pipeline = r#"[{"$match":{"big":{"$numberLong":"9007199254740993"},"long":{"$numberLong":"5"},"int":{"$numberInt":"5"},"double":{"$numberDouble":"5.0"},"decimal":{"$numberDecimal":"0.10"},"at":{"$date":{"$numberLong":"-62135596800001"}},"plain":5}}]"#;
    let metadata = format!(
        r#"{{"options":{{"viewOn":"z","pipeline":{pipeline},"collation":{{"locale":"de","strength":{{"$numberInt":"2"}}}}}}}}"#
    );
    let views = serde_json::json!([{ "name": "v", "metadata": metadata }]);
    let holds = "store.z = { docs: [], uuid: 'z' };
        store.__restoring_0badcafe_z = { docs: [{ _id: 1 }], uuid: 'y' };
        store.__restoring_marker_0badcafe = { docs: [{ _id: 'claim', of: 'shop' }], uuid: 'm' };";
    let request = format!(
        r#"{{ action: "swap", database: "shop", hex: "0badcafe", again: false, views: {views},
            collections: [{{ name: "z", identity: "y"}}] }}"#
    );
    let said = run(holds, &request, "EJSON.stringify([store.v.pipeline, store.v.collation], { relaxed: false })");
    let made: String = serde_json::from_str(last(&said)).unwrap();
    let pipeline = pipeline.replace(r#""plain":5"#, r#""plain":{"$numberInt":"5"}"#);
    assert_eq!(made, format!(r#"[{pipeline},{{"locale":"de","strength":{{"$numberInt":"2"}}}}]"#));
}

/// As a secondary answers that lags behind.
#[test]
fn a_plan_that_is_not_seen_is_no_restore_that_is_done() {
    let holds = "store.z = { docs: [{ _id: 9 }], uuid: 'old' };
        store.__restoring_0badcafe_z = { docs: [{ _id: 1 }], uuid: 'z' };
        store.__restoring_marker_0badcafe = { docs: [{ _id: 'claim', of: 'shop' }], uuid: 'm' };
        const real = shop.getCollection;
        shop.getCollection = (name) => ({ ...real(name), findOne: (query) => (query._id === 'plan' ? null : real(name).findOne(query)) });";
    let request = r#"{ action: "swap", database: "shop", hex: "0badcafe", again: false, views: [],
        collections: [{ name: "z", identity: "z"}] }"#;
    let failing = std::panic::catch_unwind(|| run(holds, request, "0")).unwrap_err();
    let said = failing.downcast_ref::<String>().unwrap();
    assert!(said.contains("the server does not show it") && !said.contains("voxeltron-answer"), "{said}");
}

/// A server neither drops `system.js` nor renames onto it.
#[test]
fn a_collection_of_code_is_written_again() {
    let swap = r#"{ action: "swap", database: "shop", hex: "0badcafe", again: false, views: [],
        collections: [{ name: "system.js", identity: "j"},
                      { name: "z", identity: "z"}] }"#;
    let loaded = "store['__restoring_0badcafe_system.js'] = { docs: [{ _id: 'f', value: 1 }, { _id: 'g', value: 2 }], uuid: 'j' };
        store.__restoring_0badcafe_z = { docs: [], uuid: 'z' };
        store.__restoring_marker_0badcafe = { docs: [{ _id: 'claim', of: 'shop' }], uuid: 'm' };";
    for live in ["", "store['system.js'] = { docs: [{ _id: 'g', value: 7 }, { _id: 'h', value: 8 }], uuid: 'old' };"] {
        let said = run(&format!("{live}{loaded}"), swap, "[store['system.js'].docs, Object.keys(store).sort()]");
        assert_eq!(last(&said), r#"[[{"_id":"f","value":1},{"_id":"g","value":2}],["system.js","z"]]"#);
    }
}
