<?php

namespace App\Models\Gt06;

/**
 * What has no column of its own, under Traccar's names: $fix->extras['batteryLevel'].
 * The column is called attributes, as Eloquent's own property is: inside of a
 * model $this->attributes is something else.
 */
trait HasExtras
{
    public function initializeHasExtras()
    {
        $this->hidden[] = 'attributes';
        $this->appends[] = 'extras';
    }

    public function getExtrasAttribute()
    {
        return json_decode($this->attributes['attributes'] ?? '{}', true);
    }
}
