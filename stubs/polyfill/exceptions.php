<?php

declare(strict_types=1);

namespace SharedState;

class Exception extends \RuntimeException {}

class MintFailed extends Exception
{
    public readonly ?float $retryAfter;

    public function __construct(string $message = '', int $code = 0, ?\Throwable $previous = null, ?float $retryAfter = null)
    {
        parent::__construct($message, $code, $previous);
        $this->retryAfter = $retryAfter;
    }
}

class RetryLater extends Exception
{
    public readonly float $seconds;

    public function __construct(float $seconds, string $message = '', ?\Throwable $previous = null)
    {
        if (!($seconds >= 0.0)) {
            throw new \ValueError(__METHOD__ . '(): Argument #1 ($seconds) must be 0 or more seconds');
        }
        parent::__construct($message, 0, $previous);
        $this->seconds = min($seconds, 86400.0);
    }
}

class WaitTimeout extends Exception {}
class StoreUnavailable extends Exception {}
class NoSource extends Exception {}
class RateUnavailable extends Exception {}
class InvalidValue extends Exception {}
class ConfigError extends Exception {}

/** @internal the polyfill's shutdown function */
function renew_deferred(): void
{
    Polyfill\Deferred::renew();
}
