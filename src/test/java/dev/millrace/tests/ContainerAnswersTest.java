package dev.millrace.tests;

import org.junit.jupiter.api.condition.EnabledIf;
import org.junit.jupiter.api.extension.ExtendWith;

/** On a broker in a container. */
@EnabledIf(
    value = "dev.millrace.tests.ContainerCluster#dockerIsThere",
    disabledReason = "there is no Docker on this machine")
@ExtendWith(ContainerCluster.Extension.class)
final class ContainerAnswersTest extends AnswersContract {}
