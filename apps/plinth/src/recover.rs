//! `plinth recover`: shows what the cluster can't decide by itself, and has it done.

use std::process::ExitCode;
use std::time::Duration;

use plinth_api::coordinator::{CARRY_OUT, CarryOut, RECOVERY_PLAN, RecoveryPlan};
use serde_json::{Value, json};

use crate::cli::RecoverArgs;
use crate::operator::{Failed, failed, request};
use crate::process::FAILURE;

/// How long the plan may take to be drawn up.
const PLANNING: Duration = Duration::from_secs(20);
/// How long it may take to be carried out.
const CARRYING_OUT: Duration = Duration::from_secs(60);

/// Shows the plan, and carries it out unless it is only to be shown.
pub(crate) fn recover(args: &RecoverArgs) -> ExitCode {
    match try_to_recover(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(failure),
    }
}

fn try_to_recover(args: &RecoverArgs) -> Result<(), Failed> {
    let document = request(&args.ask, RECOVERY_PLAN.path, None, PLANNING)?;
    let plan: RecoveryPlan = serde_json::from_value(document.clone())
        .map_err(|error| (FAILURE, format!("the plan can't be understood: {error}")))?;
    if args.dry_run {
        if args.ask.json {
            println!("{document}");
        } else {
            print!("{}", in_words(&plan));
            println!("\nNothing is done. To have it done: plinth recover --plan {}", plan.id);
        }
        return Ok(());
    }
    if !args.ask.json {
        print!("{}", in_words(&plan));
    }
    let request_body = CarryOut { id: args.plan.clone().unwrap_or(plan.id) };
    let request_body = serde_json::to_value(request_body)
        .map_err(|error| (FAILURE, format!("the request can't be written: {error}")))?;
    let done = request(&args.ask, CARRY_OUT.path, Some(&request_body), CARRYING_OUT)?;
    if args.ask.json {
        println!("{}", json!({ "plan": document, "done": done }));
    } else {
        println!("\nDone. `plinth status` shows how the cluster goes on.");
    }
    Ok(())
}

fn in_words(plan: &RecoveryPlan) -> String {
    let mut text = format!("problem: {}\nplan {}: {}\n", plan.problem, plan.id, plan.action);
    let source = serde_json::to_value(plan.source).ok();
    let source = source.as_ref().and_then(Value::as_str).unwrap_or("unknown");
    let keeper = plan.storage.as_ref().map(|keeper| format!(", kept by {keeper}"));
    text += &format!("source: {source}{}\n", keeper.unwrap_or_default());
    match &plan.recorded {
        Some(recorded) => text += &format!("configuration: {}\n", recorded.stamp()),
        None => text += "configuration: none; the cluster begins with defaults\n",
    }
    if plan.risks.is_empty() {
        text += "risks: none\n";
    } else {
        text += "risks:\n";
        for risk in &plan.risks {
            text += &format!("  - {risk}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_system_config::BootstrapSource;

    #[test]
    fn a_plan_in_words_names_everything() {
        let plan = RecoveryPlan {
            id: "00c0ffee".to_owned(),
            problem: "nobody knows".to_owned(),
            action: "begin anew".to_owned(),
            source: BootstrapSource::Default,
            storage: None,
            coordinators: Vec::new(),
            risks: vec!["everything".to_owned(), "more".to_owned()],
            recorded: None,
        };
        let words = in_words(&plan);
        for part in ["nobody knows", "plan 00c0ffee: begin anew", "source: default", "  - more"] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
    }
}
