-- Three holes in erasing (0030): one conversation left what had been learnt in it, a write could slip behind the fence,
-- and a turn that greets wrote down its user without asking for one.

-- --- the horizon ---------------------------------------------------------------------------------------------------------

-- As before (0030), but in truth younger than all: a snapshot's end is where the newest transaction begins that is still
-- under way, and whoever had got an id while the fence was being written was not waited for.
CREATE OR REPLACE FUNCTION erasure_horizon() RETURNS text LANGUAGE sql VOLATILE SET search_path = public, pg_temp AS $$
    SELECT pg_current_xact_id()::text
$$;

-- --- greetings -----------------------------------------------------------------------------------------------------------

-- As `claim_greeting` (0029), which stays for the release before, but nobody is greeted who was erased since the turn was
-- admitted. A user that it makes is as old as that, as a commit makes them.
CREATE FUNCTION claim_greeting(p_tenant text, p_user text, p_job uuid, p_subjects jsonb, p_admitted_us bigint)
RETURNS boolean LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    IF from_unix_us(p_admitted_us) <= fence_of(p_tenant, p_subjects) THEN
        RETURN false;
    END IF;
    INSERT INTO users (tenant_id, user_id, created_at) VALUES (p_tenant, p_user, from_unix_us(p_admitted_us))
    ON CONFLICT (tenant_id, user_id) DO NOTHING;
    RETURN claim_greeting(p_tenant, p_user, p_job);
END
$$;

-- --- what was learnt -----------------------------------------------------------------------------------------------------

-- Facts, which name their conversation, and entries of its user's profile go with the messages that they were learnt from.

UPDATE personal_data SET found_by = '{user_id,conversation_id}' WHERE table_name = 'user_facts';
CREATE INDEX user_facts_of_conversation ON user_facts (tenant_id, conversation_id);

-- Takes entries that were learnt from these messages out of the profiles of these users. How many profiles. The tenant must
-- be set.
CREATE FUNCTION unlearn_profiles(p_tenant text, p_users text[], p_messages text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_changed bigint;
BEGIN
    UPDATE users AS u SET profile = (
        SELECT coalesce(jsonb_object_agg(name, entry) FILTER (WHERE (entry->'sources' ?| p_messages) IS NOT TRUE), '{}')
        FROM jsonb_each(u.profile) AS each(name, entry))
    WHERE u.tenant_id = p_tenant AND u.user_id = ANY (p_users) AND EXISTS (
        SELECT FROM jsonb_each(u.profile) AS each(name, entry) WHERE entry->'sources' ?| p_messages);
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    RETURN v_changed;
END
$$;

-- As before (0030), and of a conversation that is erased by itself what its user's profile has learnt from it. It comes
-- last: whoever is just writing that holds a task of the conversation, and is waited for when that one goes.
CREATE OR REPLACE FUNCTION erase_readable(p_tenant text, p_user text, p_conversations text[], p_before timestamptz)
RETURNS jsonb LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_counts jsonb := '{}';
    v_deleted bigint;
    v_data record;
    v_users text[];
    v_messages text[];
BEGIN
    PERFORM FROM conversations WHERE tenant_id = p_tenant AND conversation_id = ANY (p_conversations)
    ORDER BY conversation_id FOR UPDATE;
    v_users := ARRAY(
        SELECT user_id FROM conversations
        WHERE p_user IS NULL AND tenant_id = p_tenant AND conversation_id = ANY (p_conversations) AND user_id IS NOT NULL);
    WITH deleted AS (
        DELETE FROM messages AS m WHERE m.tenant_id = p_tenant AND m.conversation_id = ANY (p_conversations)
            AND (p_before IS NULL OR m.created_at <= p_before OR m.job_id IN (
                SELECT j.job_id FROM jobs AS j
                WHERE j.tenant_id = p_tenant AND j.job_id = m.job_id AND j.created_at <= p_before))
        RETURNING m.message_id)
    SELECT count(*), array_agg(message_id::text) FILTER (WHERE p_user IS NULL) INTO v_deleted, v_messages FROM deleted;
    v_counts := add_counts(v_counts, jsonb_build_object('messages', v_deleted));
    DELETE FROM conversations AS c WHERE c.tenant_id = p_tenant AND c.conversation_id = ANY (p_conversations)
        AND (p_before IS NULL OR c.created_at <= p_before) AND NOT EXISTS (
            SELECT FROM messages AS m WHERE m.tenant_id = p_tenant AND m.conversation_id = c.conversation_id);
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('conversations', v_deleted));
    FOR v_data IN
        SELECT table_name, unnest(found_by) AS found_by FROM personal_data WHERE fate = 'now' ORDER BY table_name
    LOOP
        v_deleted := CASE
            WHEN v_data.found_by = 'user_id' AND p_user IS NOT NULL
            THEN delete_rows(p_tenant, v_data.table_name, 'user_id', ARRAY[p_user], p_before)
            WHEN v_data.found_by = 'conversation_id'
            THEN delete_rows(p_tenant, v_data.table_name, 'conversation_id', p_conversations, p_before)
            ELSE 0 END;
        v_counts := add_counts(v_counts, jsonb_build_object(v_data.table_name, v_deleted));
    END LOOP;
    RETURN add_counts(v_counts, jsonb_build_object('profiles', unlearn_profiles(p_tenant, v_users, v_messages)));
END
$$;

-- --- no longer used ------------------------------------------------------------------------------------------------------

-- Nothing asks for these, nor did the release before: what is known of a message is shown with its delivery
-- (`known_of_message`, 0021), and what is made of messages goes with them by keys or by its task.
DROP FUNCTION message_states(text, text, text);
DROP FUNCTION still_said(text, text, bigint[], uuid[]);
