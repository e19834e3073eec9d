# SPDX-License-Identifier: Apache-2.0
"""Which tests `make test-fast` leaves out, by file, or by `file::test`, and why each of them takes its time.

Seconds are of one CPU core. What is named here gets its marker while tests are collected (`tests/conftest.py`); what is
not stays in the inner loop and should take under a second.
"""

from __future__ import annotations

__all__ = ["ALONE", "LEFT_OUT", "group_of", "mark_of"]

ALONE = "one at a time"
"""Group of the tests that start processes or a browser: they never run beside one another."""

LEFT_OUT: dict[str, dict[str, str]] = {
    "gpu": {
        "tests/gpu/": "needs a GPU, and is skipped without one; benchmarks/gpu_check.sh runs it on a CPU to see that it runs",
    },
    "e2e": {
        "tests/e2e/": "starts Flower's processes, for minutes: Ray alone takes 8 to 18 s to start",
    },
    "browser": {
        "tests/report/test_chromium.py": "renders pages in Chromium",
    },
    "processes": {
        "tests/api/test_names.py::test_importing_the_package_brings_neither_torch_nor_flower_and_takes_under_a_tenth_of_a_second": "imports in a process of its own",
        "tests/audit/test_bounds.py::test_the_bounds_need_no_torch": "imports in a process of its own",
        "tests/bench/": "measures parts in processes of their own",
        "tests/clients/test_node.py::test_the_relay_imports_no_torch": "imports in a process of its own",
        "tests/clients/test_node.py::test_the_server_app_imports_no_torch_before_the_silos_have_joined": "as above",
        "tests/commands/test_adopt_command.py::test_a_served_gatekeeper_whose_model_was_broken_since_ends_before_it_listens_uncharged": "serves a gatekeeper",
        "tests/commands/test_adopt_command.py::test_one_command_from_a_model_to_a_served_gatekeeper_whose_answers_are_the_models_own": "serves gatekeepers, one of a network of torch",
        "tests/commands/test_last_resort.py::test_a_reader_that_goes_away_is_passed_over_in_silence": "writes into a pipe from a process of its own",
        "tests/contracts/test_gatekeeper_socket.py::test_the_relays_side_imports_neither_torch_nor_the_model": "as above",
        "tests/contracts/test_mechanism_kinds.py::test_one_file_and_one_line_add_a_mechanism_that_a_silo_then_promises": "registers it in a process of its own",
        "tests/data/test_partition.py::test_importing_the_loaders_is_light": "imports in a process of its own",
        "tests/deploy/": "asks systemd and nginx what they think of our files",
        "tests/distillation/test_crash_points.py": "kills a run at every point of its records",
        "tests/distillation/test_fitting.py": "two processes share every batch",
        "tests/distillation/test_student_kinds.py::test_two_processes_fit_a_librarys_student_as_one_does": "two processes share every batch",
        "tests/docs/test_site.py": "builds sites with mkdocs",
        "tests/gatekeeper/test_hostile_code.py": "runs hostile code under another user",
        "tests/gatekeeper/test_logs_of_a_run.py": "serves a gatekeeper",
        "tests/gatekeeper/test_service_process.py": "serves a gatekeeper and stops it",
        "tests/launch/test_certificates.py": "asks openssl and ssh-keygen what they think of our files",
        "tests/launch/test_deployment_supervisor.py": "starts, kills and starts processes again",
        "tests/launch/test_without_flower.py": "imports each part of the library in a process of its own",
        "tests/ledger/test_ledger.py::test_the_owners_modules_import_neither_torch_nor_flwr": "imports in processes",
        "tests/ledger/test_ledger_copies.py": "copies a ledger while a process writes in it",
        "tests/ledger/test_ledger_crashes.py": "kills a thousand ledgers in the middle of a write",
        "tests/sweep/test_schedule.py::test_a_killed_process_is_told_as_such": "starts a process and kills it",
        "tests/sweep/test_schedule.py::test_ended_processes_are_gone": "starts a process and ends it",
        "tests/sweep/test_schedule.py::test_the_last_line_of_a_process_that_failed_says_why": "starts a process",
        "tests/sweep/test_sweep_processes.py": "a whole sweep in its processes, stopped, killed and gone on with",
        "tests/report/test_after_run.py": "draws in processes of their own",
        "tests/teachers/test_manifest.py::test_reading_a_manifest_imports_no_torch": "imports in a process of its own",
        "tests/teachers/test_peak_memory.py": "measures processes of its own",
        "tests/test_start_up.py": "starts commands in processes of their own",
        "tests/test_freed_memory.py": "counts page faults of processes of its own",
    },
    "slow": {
        "tests/answer_set/test_consent.py::test_nothing_that_is_written_depends_on_what_an_excluded_silo_answered": "two banks that are synced line by line, in each of four cases",
        "tests/answer_set/test_consent.py::test_the_targets_are_those_of_the_remaining_silos_alone": "the hub's library opens three data sets",
        "tests/answer_set/test_exported_run.py": "whole runs",
        "tests/answer_set/test_round_trip.py::test_many_rows_are_cut_into_files_and_never_held_together": "many small files, and a bank that is synced line by line",
        "tests/api/test_audit.py": "a run and its audits",
        "tests/api/test_callbacks.py": "whole runs",
        "tests/api/test_distill.py": "whole runs, also in several threads",
        "tests/api/test_refit_from_python.py": "a run and its refits",
        "tests/api/test_simulate.py::test_a_budget_that_is_spent_refuses_and_a_run_ends_with_what_there_is": "a whole run",
        "tests/api/test_simulate.py::test_a_policy_that_was_given_replaces_one_that_was_given_and_none_that_its_owner_edited": "six federations",
        "tests/api/test_simulate.py::test_a_promise_of_differential_privacy_is_kept_or_refused": "a whole run",
        "tests/api/test_simulate.py::test_a_temporary_federation_leaves_nothing_and_a_closed_one_answers_no_more": "collects garbage",
        "tests/api/test_simulate.py::test_models_may_know_different_classes": "a whole run",
        "tests/audit/test_attack_contract.py::test_one_file_and_one_line_add_an_attack_that_an_audit_then_runs": "a small audit",
        "tests/audit/test_bounds.py::test_one_run_bounds_rise_with_right_guesses_and_fall_with_confidence_and_delta": "a grid of bounds, each by bisection",
        "tests/audit/test_bounds.py::test_randomised_response_is_accused_as_often_as_allowed_and_not_far_less": "300 audits of a mechanism whose epsilon is known, in each of 12 cases",
        "tests/audit/test_copying.py::test_scattering_sees_copies_that_were_moved_by_a_pixel_and_pixels_do_not": "scattering coefficients of its images",
        "tests/audit/test_copying.py::test_without_copying_z_is_standard_normal": "a statistic drawn many times",
        "tests/audit/test_disjoint_expertise.py": "two runs and an audit",
        "tests/audit/test_dp_sgd_audit.py": "trains 25 networks, 20 honest ones for the rate of false alarms",
        "tests/audit/test_over_run.py": "a run and its audit",
        "tests/audit/test_person_audit.py::test_a_clip_for_each_person_is_never_refuted": "many trainings",
        "tests/audit/test_person_audit.py::test_the_projects_training_keeps_its_claim_for_persons_and_clipped_per_record_is_caught": "240 trainings in two worlds",
        "tests/audit/test_run_audit.py": "whole audits, cut at every stage",
        "tests/audit/test_shadows.py::test_the_noise_is_what_the_accountant_asks_for": "the numerical accountant",
        "tests/benchmarks/test_dishonest.py::test_a_measurement_that_was_stopped_goes_on_where_it_was": "some fifty banks",
        "tests/benchmarks/test_dishonest.py::test_students_are_compared_with_those_of_the_others": "six students",
        "tests/commands/test_audit_command.py": "whole audits",
        "tests/commands/test_init_command.py::test_what_it_writes_makes_silos": "trains teachers",
        "tests/commands/test_kept_answers.py": "whole runs over trained silos",
        "tests/commands/test_report_of_run.py": "whole runs",
        "tests/commands/test_run_command.py": "whole runs",
        "tests/commands/test_status.py": "a whole run",
        "tests/commands/test_student_of_run.py::test_a_local_run_fits_a_student_of_torchvision_from_weights_on_the_disk": "a whole run",
        "tests/data/test_folders.py::test_deep_folders_are_no_trouble": "paths of two thousand characters",
        "tests/data/test_partition.py::test_a_silo_reads_its_own_files_where_no_other_silos_are": "makes silos",
        "tests/data/test_partition.py::test_parts_are_disjoint_complete_and_decided_by_the_seed": "a property over many examples",
        "tests/data/test_reader_fuzz.py::test_damaged_pictures_folders_and_tables_are_read_or_explained": "reads 2,000 sources",
        "tests/data/test_reader_fuzz.py::test_trees_of_any_names_are_read_or_explained": "reads 200 folders",
        "tests/distillation/test_at_silos.py": "whole runs over fake silos, one of which is waited for",
        "tests/distillation/test_by_recipe.py": "whole runs, by images and by recipe",
        "tests/distillation/test_contribution.py": "a small federation for each case",
        "tests/distillation/test_denoising.py::test_rows_are_distributions_and_keep_their_order": "a property over many examples",
        "tests/distillation/test_evaluation_schedule.py": "whole runs, measured after more and after fewer rounds",
        "tests/distillation/test_events.py": "whole runs, cut at several rounds, with TensorBoard's reader",
        "tests/distillation/test_failing_teacher.py": "whole runs",
        "tests/distillation/test_full_disk.py": "whole runs on a disk that is full",
        "tests/distillation/test_information.py::test_a_mixed_federation_runs_and_tells_who_counted_how_much": "two runs",
        "tests/distillation/test_label_set_runs.py": "whole runs over unlike label sets",
        "tests/gatekeeper/test_evaluation.py::test_the_noise_is_as_large_as_it_says_and_no_larger": "draws noise until its variance is known to a tenth",
        "tests/gatekeeper/test_evaluation.py::test_what_two_neighbours_release_is_no_easier_to_tell_apart_than_the_charge_says_and_hardly_harder": "80,000 draws",
        "tests/report/test_judged_by_silos.py": "whole runs over fake silos, and a page",
        "tests/silos/test_held_out_images.py": "trains teachers; whole runs over real silos",
        "tests/silos/test_label_sets_of_silos.py": "trains silos and runs over them",
        "tests/audit/test_audit_of_label_sets.py": "trains silos and runs over them",
        "tests/distillation/test_public_images.py::test_a_killed_run_goes_on_with_the_same_pictures_to_the_same_student": "a run, and one that is killed and resumed",
        "tests/distillation/test_public_images.py::test_photographs_and_public_pictures_are_both_named_and_a_procedural_run_names_none": "two runs",
        "tests/distillation/test_large_images.py": "draws and fits images of photographs' size",
        "tests/distillation/test_many_silos.py": "measures memory over banks of many silos",
        "tests/distillation/test_on_device.py": "torch's meta kernels take seconds to import",
        "tests/distillation/test_optimisers.py::test_a_fit_repeats_and_its_loss_falls": "fits of each kind, twice",
        "tests/distillation/test_overlap.py": "whole runs with answers out of order",
        "tests/distillation/test_own_student.py": "whole runs with a module of the caller's own, and torch's exporters",
        "tests/distillation/test_parts.py": "whole runs over silos of unlike query sizes, cut and resumed",
        "tests/distillation/test_refit.py": "whole runs, and students of what they banked",
        "tests/distillation/test_run_pictures.py": "draws sheets of up to a thousand classes",
        "tests/distillation/test_run.py": "whole runs, cut at every round and resumed",
        "tests/distillation/test_start_from.py": "whole runs, and others that begin with their answers",
        "tests/distillation/test_student_kinds.py": "whole runs with a resnet18 as the student, and torch's exporters",
        "tests/distillation/test_targets.py::test_silos_that_never_saw_a_class_leave_it_to_those_that_did": "trains teachers",
        "tests/docs/test_examples.py::test_a_private_policy_is_refused_without_proof_and_ends_with_its_budget": "runs an example",
        "tests/docs/test_examples.py::test_the_notebook_runs_from_top_to_bottom": "runs the notebook, two minutes",
        "tests/docs/test_examples.py::test_three_models_become_a_student_better_than_most_of_them": "runs an example, a minute",
        "tests/docs/test_examples.py::test_two_rules_are_compared_over_the_same_answers": "runs an example, two minutes",
        "tests/export/test_class_shares.py": "a whole run, and torch's exporters",
        "tests/export/test_export.py": "torch's exporters, on a thousand images each",
        "tests/gatekeeper/test_composition.py::test_the_largest_mu2_beside_trainings_stays_within_the_promise_and_close_to_it": "composes a training with noise, by bisection",
        "tests/gatekeeper/test_gatekeeper_fuzz.py": "100,000 malformed requests",
        "tests/gatekeeper/test_guarantee.py::test_a_second_dp_sgd_teacher_of_the_same_data_composes_with_the_first": "composes trainings by their numerical accountant",
        "tests/gatekeeper/test_guarantee.py::test_a_training_that_was_carried_over_leaves_less_for_noisy_answers": "composes a training with noisy answers, by bisection",
        "tests/gatekeeper/test_guarantee.py::test_monthly_trainings_are_refused_where_their_composition_passes_the_budget_and_forecast_before": "composes up to 13 trainings by the numerical accountant",
        "tests/gatekeeper/test_policy_check.py::test_the_check_says_how_many_more_trainings_fit": "composes trainings by the numerical accountant",
        "tests/ledger/test_ledger_reading.py::test_a_flipped_bit_anywhere_is_a_ledger_error_or_changes_nothing": "every byte of a ledger",
        "tests/models/test_classifiers.py::test_a_training_step_of_the_small_convnet_is_quick": "measures the processor's time of a training step",
        "tests/models/test_classifiers.py::test_every_architecture_takes_every_size": "one pass of every network at every size",
        "tests/models/test_classifiers.py::test_parameter_counts_are_the_published_ones": "the largest networks",
        "tests/models/test_classifiers.py::test_small_architectures_learn": "trains a network of each kind",
        "tests/models/test_classifiers.py::test_the_gradient_reaches_the_image_and_every_parameter": "one pass of every network",
        "tests/models/test_gpu_settings.py::test_a_fused_step_reads_no_number_from_the_gpu_whatever_the_rate": "torch's fake kernels take seconds to import",
        "tests/models/test_gpu_settings.py::test_on_a_gpu_the_optimiser_is_fused_and_elsewhere_torchs_choice": "as above",
        "tests/models/test_students.py": "builds torchvision's and timm's networks",
        "tests/privacy/test_accounting.py::test_epsilon_of_a_training": "the numerical accountant over long trainings",
        "tests/privacy/test_accounting.py::test_the_second_opinion_is_opacus": "as above, by Opacus",
        "tests/privacy/test_accounting.py::test_trainings_and_answers_compose_above_each_alone": "as above",
        "tests/protocol/test_messages.py::test_bytes_and_back_is_the_same_message": "a property over many examples",
        "tests/protocol/test_recipe.py::test_bytes_that_went_wrong_are_a_message_or_a_protocol_error": "a property over many examples",
        "tests/report/test_headline.py": "reads a whole run",
        "tests/report/test_page.py": "draws whole reports",
        "tests/report/test_public.py": "draws whole reports",
        "tests/report/test_query_pictures.py": "draws the images of a hundred classes",
        "tests/runs/test_damage.py::test_what_the_remedy_of_a_damaged_result_says_brings_the_same_run_back": "a whole run",
        "tests/runs/test_read.py": "reads a whole run",
        "tests/server/test_server_app.py": "whole runs over an in-process grid",
        "tests/silos/test_adopt_resnet.py": "a resnet18 in every form, exported and asked",
        "tests/silos/test_adopted.py::test_a_whole_run_in_one_process_charges_its_ledger_and_touches_nothing_else": "a whole run",
        "tests/silos/test_monthly_exports.py": "trains teachers with DP-SGD and composes the trainings",
        "tests/silos/test_replica.py": "trains teachers, one with DP-SGD",
        "tests/silos/test_replacing.py::test_a_crash_at_any_point_loses_neither_teacher": "kills a replacement before each of its steps on the disk",
        "tests/statistical/": "two-sided tests of noise: as many draws as their false-alarm rate asks for, minutes in all",
        "tests/sweep/test_results.py": "draws whole pages and pictures",
        "tests/sweep/test_sweep.py": "makes silos, draws whole pages and pictures",
        "tests/teachers/test_teacher_on_device.py": "torch's meta kernels take seconds to import",
        "tests/teachers/test_own_resnet18.py": "exports and runs a resnet18 in each format, also at 224x224",
        "tests/teachers/test_recognise_huggingface.py::test_a_folder_says_all_that_a_manifest_needs_and_answers_as_its_owner_knows_it": "imports transformers",
        "tests/teachers/test_recognise_huggingface.py::test_a_folder_that_timm_wrote_is_timms": "builds a resnet18",
        "tests/teachers/test_recognise_programs.py": "exports programs by torch.export",
        "tests/teachers/test_recognise_weights.py": "builds torchvision's and timm's networks, to compare weights with them",
        "tests/test_yaml_fuzz.py": "2,000 damaged files",
        "tests/training/test_canaries.py": "trains teachers with canaries, with DP-SGD too",
        "tests/training/test_outliers.py": "trains teachers with public outliers",
        "tests/training/test_private_training.py": "trains teachers with DP-SGD",
        "tests/training/test_training_on_device.py": "torch's meta kernels take seconds to import",
        "tests/training/test_training.py": "trains teachers",
        "tests/white_box/test_authors_code.py": "steps of whole ResNets, some in float64: half a minute",
        "tests/white_box/test_white_box_engine.py::test_in_the_generator_phase_only_generator_adapter_and_z_learn": "whole phases of training",
        "tests/white_box/test_white_box_on_device.py": "torch's meta kernels take seconds to import",
        "tests/white_box/test_white_box_run.py": "whole runs; one trains until it is far above chance",
    },
}


def mark_of(nodeid: str) -> tuple[str, str] | None:
    """The marker of a test and the reason for it, None where it is fast.

    Args:
        nodeid: pytest's name of the test, e.g. tests/test_cli.py::test_seeds.
    """
    plain = nodeid.partition("[")[0]
    for mark, places in LEFT_OUT.items():
        for place, reason in places.items():
            if plain == place or plain.startswith(place if place.endswith("/") else place + "::"):
                return mark, reason
    return None


def group_of(nodeid: str) -> str:
    """The group of a test, where several workers share the tests; those of a group are one worker's.

    Tests of a file stay together, for what they share is made once.

    Args:
        nodeid: pytest's name of the test.
    """
    mark = mark_of(nodeid)
    return ALONE if mark and mark[0] in ("e2e", "browser", "processes") else nodeid.partition("::")[0]
