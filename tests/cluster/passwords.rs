//! Recovery passwords as people type them, through the command line: the published ones arrive as they are, and a wrong
//! one is refused before anything is sent, with its group named.

use uuid::Uuid;

use crate::harness::Harness;

/// Published examples of valid recovery passwords: libbde, libbde.ini, dislocker's manual page, bitcracker.
const VALID: [&str; 4] = [
    "471207-278498-422125-177177-561902-537405-468006-693451",
    "599907-126192-034078-378543-435050-262383-683309-100661",
    "563200-557084-108284-218900-019151-415437-694144-239976",
    "236808-089419-192665-495704-618299-073414-538373-542366",
];

/// What is wrong, and what the refusal has to say.
const WRONG: [(&str, &str); 12] = [
    // Microsoft's own example: every group is divisible by 11, the last two are above 720885.
    ("111111-222222-333333-444444-555555-666666-777777-888888", "group 7"),
    ("471207-278498-422125-177177-561902-537405-468006-693452", "group 8"),
    ("471207-278498-422125-177178-561902-537405-468006-693451", "group 4"),
    // Two neighbours swapped.
    ("471207-274898-422125-177177-561902-537405-468006-693451", "group 2"),
    // 720896 is 11 times 65536, one more than two bytes hold.
    ("720896-278498-422125-177177-561902-537405-468006-693451", "group 1"),
    ("471207-278498-720896-177177-561902-537405-468006-693451", "group 3"),
    // What strtol would take for 11.
    ("+00011-278498-422125-177177-561902-537405-468006-693451", "group 1"),
    ("471207-278498-422125-177177-561902-537405-468006--00011", "group 8"),
    ("471207- 00011-422125-177177-561902-537405-468006-693451", "group 2"),
    ("471207-278498-422125-177177-561902-537405-468006-\u{ff16}93451", "group 8"),
    ("\u{664}71207-278498-422125-177177-561902-537405-468006-693451", "group 1"),
    ("471207-278498-422125-177177-561902-537405-468006", "not 7"),
];

#[tokio::test(flavor = "multi_thread")]
async fn mistyped_passwords_are_refused_by_group_and_published_ones_come_back_as_they_were() {
    let harness = Harness::start().await;
    let device = harness.device.to_string();
    let escrow = async |protector: &str, volume: &str, typed: &str| {
        let args =
            ["key", "escrow", "--device", &device, "--volume", volume, "--protector", protector];
        harness.run_with_input(&harness.agent, &args, typed).await
    };
    for (typed, names) in WRONG {
        let (protector, volume) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let refused = escrow(&protector, &volume, typed).await.ends_with(2);
        assert!(refused.stderr().contains(names), "{typed}: {}", refused.stderr());
        assert!(refused.stdout().is_empty(), "{typed}");
        for group in typed.split('-').filter(|group| group.len() > 4) {
            assert!(
                !refused.stderr().contains(group),
                "no digit is repeated: {}",
                refused.stderr()
            );
        }
    }
    // Nothing of these was sent: the device has never been heard of.
    harness.run(&harness.help_desk, &["key", "find", "--device", &device]).await.ends_with(4);
    harness.run(&harness.reader, &["device", "show", &device]).await.ends_with(4);

    for typed in VALID {
        let (protector, volume) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        escrow(&protector, &volume, typed).await.ends_with(0);
        let disclose =
            ["key", "disclose", &protector, "--reason", "LOST_PIN", "--user", "CORP\\alice"];
        let shown = harness.run(&harness.help_desk, &disclose).await.ends_with(0);
        assert_eq!(shown.stdout().lines().next(), Some(typed));
    }
    let found = ["key", "find", "--device", &device, "-o", "json"];
    let found = harness.run(&harness.help_desk, &found).await.ends_with(0).json();
    assert_eq!(found["keys"].as_array().unwrap().len(), VALID.len());
}
