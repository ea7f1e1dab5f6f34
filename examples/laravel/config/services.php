<?php

declare(strict_types=1);

return [
    'crm' => [
        'url' => env('CRM_URL'),
        'client_id' => env('CRM_CLIENT_ID'),
        'client_secret' => env('CRM_CLIENT_SECRET'),
    ],
];
