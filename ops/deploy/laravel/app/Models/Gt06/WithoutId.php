<?php

namespace App\Models\Gt06;

use LogicException;

/**
 * A table whose primary key has several columns, which Eloquent does not know:
 * there is no find(). A row has an identity all the same, so that collections
 * can tell two of them apart (unique, diff, contains, is).
 */
trait WithoutId
{
    public function initializeWithoutId()
    {
        $this->primaryKey = null;
        $this->incrementing = false;
        $this->keyType = 'string';
    }

    public function getKey()
    {
        return implode(':', array_map(function ($column) {
            return $this->getRawOriginal($column);
        }, static::KEY));
    }

    /** What find, whereKey and chunkById ask for. */
    public function getQualifiedKeyName()
    {
        throw new LogicException(static::class.' has no id: its key is '.implode(', ', static::KEY));
    }

    public function getRouteKeyName()
    {
        return $this->getQualifiedKeyName();
    }
}
