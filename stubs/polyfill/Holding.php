<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** What is kept under a sheet's name: the sheet that is served, one that is held back, and whether nobody has taken a second look at the first. */
final class Holding
{
    public function __construct(public readonly Sheet $sheet, public readonly ?Sheet $quarantine = null, public readonly bool $unconfirmed = false)
    {
    }
}
