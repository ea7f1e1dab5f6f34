<?php

/** One call, which knows nothing of tokens. */

declare(strict_types=1);

use GuzzleHttp\Client;

/** @var Client $crm */
$crm = require __DIR__ . '/client.php';

echo (string) $crm->get('/orders')->getBody();
