using NbdKit.Faults.Failing;

namespace NbdKit.Faults.Rows;

/// <summary>
/// Every callback of a plugin fails in every way, at every moment, for each form of replies, within TLS, and below each filter that
/// needs no special disk. Before a merge some of the last three.
/// </summary>
internal sealed class PluginFaults : Fault
{
    private const int Forms = 3;
    private const int Tries = 100;

    public override string Id => "F09";

    public override string Title => "plugin faults";

    public override async Task<string> RunAsync(FaultRun run)
    {
        (Callback Callback, Failure Failure, Moment Moment)[] cases =
        [
            .. from callback in Enum.GetValues<Callback>()
               from failure in Enum.GetValues<Failure>()
               from moment in Enum.GetValues<Moment>()
               select (callback, failure, moment),
        ];
        int count = 0;
        for (int form = 0; form < Forms; form++)
        {
            foreach ((Callback callback, Failure failure, Moment moment) in Some(cases, form == 2 ? run.Size(150, cases.Length) : cases.Length, run, form))
            {
                await Name($"{callback}, {failure}, {moment}, form {form}", new FailureCase(callback, failure, moment, form).RunAsync());
                count++;
            }
        }
        int tls = 0;
        for (int form = 0; form < Forms; form++)
        {
            foreach ((Callback callback, Failure failure, Moment moment) in Some(cases, run.Size(25, cases.Length), run, 10 + form))
            {
                await Name(
                    $"{callback}, {failure}, {moment}, form {form} with TLS", new FailureCase(callback, failure, moment, form, tls: true).RunAsync());
                tls++;
            }
        }
        int layered = 0;
        int layers = 0;
        for (int which = 0; which < FailingLayer.Count; which++)
        {
            int below = await LayerAsync(which, Some(cases, run.Size(40, cases.Length), run, 100 + which), run);
            layered += below;
            layers += below > 0 ? 1 : 0;
        }
        return $"{count} cases, {tls} with TLS, {layered} below one of {layers} filters";
    }

    private static async Task<int> LayerAsync(int which, IEnumerable<(Callback Callback, Failure Failure, Moment Moment)> cases, FaultRun run)
    {
        Random random = run.Random(1000 + which);
        int count = 0;
        foreach ((Callback callback, Failure failure, Moment moment) in cases)
        {
            int seed = random.Next();
            // Not every seed makes one, and of a filter that comes in pairs only, none does.
            for (int i = 0; i < Tries && FailingLayer.Create(which, seed) is null; i++)
            {
                seed = random.Next();
            }
            if (FailingLayer.Create(which, seed) is not { } layer)
            {
                return 0;
            }
            bool extended = random.Next(2) == 0;
            string name = $"{callback}, {failure}, {moment}, {(extended ? "extended" : "structured")}, below {layer.Name} of seed {seed}";
            byte[]?[] right = await Quiet(callback, extended, FailingLayer.Create(which, seed)!, name);
            await Name(name, new LayeredCase(callback, failure, moment, extended, layer).RunAsync(right));
            count++;
        }
        return count;
    }

    // A cleanup that is late is no failure.
    private static async Task<byte[]?[]> Quiet(Callback callback, bool extended, FailingLayer layer, string name)
    {
        var quiet = new LayeredCase(
            callback == Callback.ReadSparse ? callback : Callback.Cleanup, Failure.Late, Moment.AtOnce, extended, layer);
        Task<byte[]?[]> running = quiet.RunAsync(null);
        await Name($"nothing fails; {name}", running);
        return await running;
    }

    private static IEnumerable<T> Some<T>(T[] all, long count, FaultRun run, int part)
    {
        if (count >= all.Length)
        {
            return all;
        }
        T[] shuffled = [.. all];
        run.Random(part).Shuffle(shuffled);
        return shuffled[..(int)count];
    }

    private static async Task Name(string what, Task running)
    {
        try
        {
            await running;
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{what}: {e.Message}", e);
        }
    }
}
