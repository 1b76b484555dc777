<?php

namespace App\Providers;

use App\Database\UtcConnection;
use Illuminate\Database\Connection;
use Illuminate\Database\Connectors\MySqlConnector;
use Illuminate\Support\ServiceProvider;

/** Makes 'driver' => 'gt06' of config/database.php a MariaDB whose times are UTC. */
class Gt06ServiceProvider extends ServiceProvider
{
    public function register()
    {
        $this->app->bind('db.connector.gt06', MySqlConnector::class);
        Connection::resolverFor('gt06', function ($pdo, $database, $prefix, $config) {
            return new UtcConnection($pdo, $database, $prefix, $config);
        });
    }
}
