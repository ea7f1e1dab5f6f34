<?php

/** Composer includes this file; with the extension there is nothing to do. */

declare(strict_types=1);

if (!extension_loaded('sharedstate')) {
    require_once __DIR__ . '/exceptions.php';
    require_once __DIR__ . '/functions.php';
}
