<?php

/** Stands in for a Laravel application, which brings the container and reads config/ by itself. */

declare(strict_types=1);

use App\Providers\CrmServiceProvider;
use App\Services\Crm;
use Illuminate\Config\Repository;
use Illuminate\Container\Container;

require __DIR__ . '/vendor/autoload.php';

$app = new Container();
$app->instance('config', new Repository(['services' => require __DIR__ . '/config/services.php']));
(new CrmServiceProvider($app))->register();

// In a controller or a job: a parameter of type Crm.
/** @var Crm $crm */
$crm = $app->make(Crm::class);
echo json_encode(['orders' => $crm->orders()]), "\n";
