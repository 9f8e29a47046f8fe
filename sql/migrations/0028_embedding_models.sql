-- Moving memory from one embedding model to another, without a moment in which nothing is found.
--
-- A model is added as `building`: new items are embedded for it beside the active one, old ones are filled in. When it
-- lacks nothing that the active one has, the two change places in one statement; the old one goes on being written, so
-- that one can go back, until it is retired. Its vectors are deleted in steps, each a short transaction.

-- The first model of a deployment, active at once; NULL when there is one already. Two processes that start at the same
-- time make it once: names are unique, and so is the active one.
CREATE FUNCTION ensure_embedding_model(p_name text, p_dimensions integer, p_floor real) RETURNS smallint
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO embedding_models (name, dimensions, floor, state, activated_at)
    SELECT p_name, p_dimensions, p_floor, 'active', now()
    WHERE NOT EXISTS (SELECT FROM embedding_models)
    ON CONFLICT DO NOTHING
    RETURNING model_id
$$;

-- A further model, or one that was retired and comes back. Returns its state as it was before; NULL: there was none.
CREATE FUNCTION add_embedding_model(p_name text, p_dimensions integer, p_floor real) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_state text;
BEGIN
    PERFORM pg_advisory_xact_lock(memory_models_lock());  -- items written from now on know of it
    SELECT state INTO v_state FROM embedding_models WHERE name = p_name FOR UPDATE;
    IF v_state = 'retired' THEN
        UPDATE embedding_models SET
            state = 'building', floor = p_floor, retired_at = NULL, activated_at = NULL,
            filled_tenant = '', filled_user = '', filled_item = 0
        WHERE name = p_name;
    ELSIF v_state IS NULL THEN
        INSERT INTO embedding_models (name, dimensions, floor) VALUES (p_name, p_dimensions, p_floor);
    END IF;
    RETURN v_state;
END
$$;

-- What a model lacks: `unfilled` items nobody has looked at for it, `pending` texts that wait, of which `failing` have
-- failed five times or more, `gap`: those of the pending that the active model is done with and that are not failing.
CREATE FUNCTION embedding_progress(p_model smallint,
    OUT unfilled bigint, OUT pending bigint, OUT failing bigint, OUT gap bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    v_active smallint := (SELECT model_id FROM embedding_models WHERE state = 'active');
BEGIN
    SELECT count(*) INTO unfilled FROM embedding_models AS m JOIN memory_items AS i
        ON (i.tenant_id, i.user_id, i.item_id) > (m.filled_tenant, m.filled_user, m.filled_item)
    WHERE m.model_id = p_model
        AND NOT EXISTS (SELECT FROM memory_pending AS p WHERE p.model_id = p_model AND p.item_id = i.item_id)
        AND NOT EXISTS (
            SELECT FROM memory_embeddings AS e
            WHERE (e.tenant_id, e.user_id, e.model_id, e.item_id) = (i.tenant_id, i.user_id, p_model, i.item_id));
    SELECT count(*), count(*) FILTER (WHERE p.attempts >= 5),
        count(*) FILTER (WHERE p.attempts < 5 AND NOT EXISTS (
            SELECT FROM memory_pending AS a WHERE a.model_id = v_active AND a.item_id = p.item_id))
    INTO pending, failing, gap
    FROM memory_pending AS p WHERE p.model_id = p_model;
END
$$;

-- The active model from now on. Returns why not, or NULL. What it still lacks is refused unless p_force.
CREATE FUNCTION activate_embedding_model(p_name text, p_force boolean) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_model embedding_models;
    v_lacks record;
BEGIN
    PERFORM pg_advisory_xact_lock(memory_models_lock());
    SELECT * INTO v_model FROM embedding_models WHERE name = p_name FOR UPDATE;
    IF v_model.state IS NULL OR v_model.state IN ('retiring', 'retired') THEN
        RETURN coalesce(v_model.state, 'unknown');
    ELSIF v_model.state = 'active' THEN
        RETURN NULL;
    END IF;
    SELECT * INTO v_lacks FROM embedding_progress(v_model.model_id);
    IF NOT p_force AND v_lacks.unfilled + v_lacks.gap > 0 THEN
        RETURN 'incomplete';
    END IF;
    UPDATE embedding_models SET state = 'building' WHERE state = 'active';
    UPDATE embedding_models SET state = 'active', activated_at = now() WHERE model_id = v_model.model_id;
    RETURN NULL;
END
$$;

-- A model whose vectors are to go. Returns why not, or NULL. Not the active one; and not while workers may still search
-- by it, who learn of a change within seconds.
CREATE FUNCTION retire_embedding_model(p_name text) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_state text;
BEGIN
    PERFORM pg_advisory_xact_lock(memory_models_lock());
    SELECT state INTO v_state FROM embedding_models WHERE name = p_name FOR UPDATE;
    IF v_state IS NULL OR v_state IN ('active', 'retired') THEN
        RETURN coalesce(v_state, 'unknown');
    ELSIF EXISTS (SELECT FROM embedding_models WHERE state = 'active' AND activated_at > now() - interval '30 seconds') THEN
        RETURN 'too_soon';
    END IF;
    UPDATE embedding_models SET state = 'retiring' WHERE name = p_name AND state = 'building';
    RETURN NULL;
END
$$;

-- One step of it: walks on behind a user (`''`, `''`: from the beginning) and deletes about p_limit vectors. Returns the
-- user it came to, tenant NULL at the end, and how many are gone; a walk that finds nothing at all ends it (`retired`).
-- By the primary key: other models' vectors of a user are never read.
CREATE FUNCTION forget_embeddings(p_model smallint, p_tenant text, p_user text, p_limit integer,
    OUT tenant text, OUT "user" text, OUT deleted integer)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_now integer;
BEGIN
    tenant := p_tenant;
    "user" := p_user;
    deleted := 0;
    PERFORM FROM embedding_models WHERE model_id = p_model AND state = 'retiring' FOR SHARE;
    IF NOT FOUND THEN
        tenant := NULL;
        RETURN;
    END IF;
    DELETE FROM memory_pending WHERE item_id IN (
        SELECT item_id FROM memory_pending WHERE model_id = p_model LIMIT p_limit) AND model_id = p_model;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    FOR v_step IN 1 .. 1000 LOOP
        SELECT e.tenant_id, e.user_id INTO tenant, "user" FROM memory_embeddings AS e
        WHERE (e.tenant_id, e.user_id) > (tenant, "user") ORDER BY e.tenant_id, e.user_id LIMIT 1;
        EXIT WHEN tenant IS NULL;
        DELETE FROM memory_embeddings AS e WHERE (e.tenant_id, e.user_id, e.model_id) = (tenant, "user", p_model);
        GET DIAGNOSTICS v_now = ROW_COUNT;
        deleted := deleted + v_now;
        EXIT WHEN deleted >= p_limit;
    END LOOP;
END
$$;

-- After a walk that found nothing. Whether it is retired now, by whomever.
CREATE FUNCTION embedding_model_gone(p_model smallint) RETURNS boolean
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE embedding_models SET state = 'retired', retired_at = now() WHERE model_id = p_model AND state = 'retiring'
    RETURNING true
$$;
