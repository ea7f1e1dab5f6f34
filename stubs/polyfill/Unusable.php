<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** What a callable returned cannot be used; the message says why and never quotes a value, which may be the token. */
final class Unusable extends \Exception
{
}
