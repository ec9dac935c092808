package dev.millrace.topology;

import dev.millrace.schemas.RegistryUnavailableException;
import java.net.ConnectException;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.net.UnknownHostException;
import java.net.http.HttpTimeoutException;
import javax.net.ssl.SSLException;
import org.apache.kafka.common.errors.RetriableException;
import org.jspecify.annotations.Nullable;

/**
 * Tells a record that is at fault from a registry that is. Our own serde says which; Confluent's
 * throws one exception for both, and what caused it tells them apart.
 */
final class SerdeFailures {
  private static final String REST_EXCEPTION = "RestClientException";
  private static final int DEEPEST = 20;

  private SerdeFailures() {}

  /** Whether the same bytes may well be read, or written, later. */
  static boolean isOutage(Throwable failure) {
    @Nullable Throwable at = failure;
    for (int depth = 0; at != null && depth < DEEPEST; depth++) {
      if (at instanceof RegistryUnavailableException
          || at instanceof RetriableException
          || at instanceof ConnectException
          || at instanceof SocketException
          || at instanceof SocketTimeoutException
          || at instanceof HttpTimeoutException
          || at instanceof UnknownHostException
          || at instanceof SSLException) {
        return true;
      }
      if (at.getClass().getSimpleName().equals(REST_EXCEPTION)) {
        // Its message ends with its code: 404.. is an unknown schema, all else the registry's fault.
        String message = String.valueOf(at.getMessage());
        return !message.contains("error code: 404");
      }
      at = at.getCause();
    }
    return false;
  }
}
