<?php

declare(strict_types=1);

namespace SharedState;

class Exception extends \RuntimeException {}
class MintFailed extends Exception {}
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
