package dev.millrace.inference.engine;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;

/**
 * One sequence for the {@link Engine}. The arrays belong to the engine from then on: it does not
 * copy them, nobody may change them. maxTokens and minTokens count resumed tokens too.
 *
 * @param prompt at least one token, each of the vocabulary
 * @param resume generated tokens of an earlier attempt; the output continues after them
 * @param stopTokens ids that end the sequence (unless ignoreEos)
 * @param scheduling its priority and tenant; those of one tenant and priority run in the order of
 *     submission
 */
public record TokenRequest(
    String id,
    int[] prompt,
    int[] resume,
    SamplingParams sampling,
    int[] stopTokens,
    Scheduling scheduling) {}
