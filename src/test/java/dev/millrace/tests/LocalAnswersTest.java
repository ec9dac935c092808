package dev.millrace.tests;

import org.junit.jupiter.api.extension.ExtendWith;

/** On the broker of this process. */
@ExtendWith(LocalCluster.Extension.class)
final class LocalAnswersTest extends AnswersContract {}
