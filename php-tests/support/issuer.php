<?php

/**
 * A token endpoint: answers with the status that the file ISSUER_STATUS says, and writes down that it was asked.
 *
 *   php -S 127.0.0.1:PORT issuer.php
 */

declare(strict_types=1);

file_put_contents(getenv('ISSUER_LOG'), sprintf("%.6f\n", microtime(true)), FILE_APPEND | LOCK_EX);
http_response_code((int) file_get_contents(getenv('ISSUER_STATUS')));
header('Content-Type: application/json');
echo http_response_code() === 200
    ? json_encode(['access_token' => bin2hex(random_bytes(16)), 'expires_in' => (int) (getenv('ISSUER_TTL') ?: 60)])
    : json_encode(['error' => 'slow_down']);
