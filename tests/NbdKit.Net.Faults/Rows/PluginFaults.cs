using NbdKit.Faults.Failing;

namespace NbdKit.Faults.Rows;

/// <summary>
/// Every callback of a plugin fails in every way, at every moment, for each form of replies, within TLS, and below each filter, some
/// of these within TLS too. Before a merge some of the last three, and of those that never complete below a filter one of each.
/// </summary>
internal sealed class PluginFaults : Fault
{
    private const int Forms = 3;
    private const int Tries = 100;

    // Of the sessions below a filter, one in so many is within TLS.
    private const int TlsDensity = 16;

    private static readonly Callback[] Requests =
    [
        Callback.Read, Callback.ReadSparse, Callback.Write, Callback.Flush, Callback.Trim, Callback.Zero, Callback.Cache, Callback.Extents,
    ];

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
        (Callback Callback, Failure Failure, Moment Moment)[] hanging =
            [.. from callback in Requests select (callback, Failure.Never, Moment.AfterAwait)];
        int layered = 0;
        int goingOn = 0;
        for (int which = 0; which < FailingLayer.Count; which++)
        {
            (int below, int on) = await LayerAsync(
                which, [.. hanging, .. Some(cases, run.Size(40, cases.Length), run, 100 + which)], hanging.Length, run);
            layered += below;
            goingOn += on;
        }
        return $"{count} cases, {tls} with TLS, {layered} below one of {FailingLayer.Count} filters; "
            + $"{goingOn} times others were served below one while a call hung";
    }

    private static async Task<(int Count, int GoingOn)> LayerAsync(
        int which, IEnumerable<(Callback Callback, Failure Failure, Moment Moment)> cases, int later, FaultRun run)
    {
        Random random = run.Random(1000 + which);
        int count = 0;
        int goingOn = 0;
        bool mustGoOn = true;
        foreach ((Callback callback, Failure failure, Moment moment) in cases)
        {
            int seed = random.Next();
            // Not every seed makes one.
            for (int i = 0; i < Tries && FailingLayer.Create(which, seed) is null; i++)
            {
                seed = random.Next();
            }
            FailingLayer layer = FailingLayer.Create(which, seed)
                ?? throw new InvalidOperationException($"no seed makes the filter {which} of {FailingLayer.Count}");
            bool extended = random.Next(2) == 0;
            bool tls = random.Next(TlsDensity) == 0 || (layer.NeedsTls && count % 2 == 0);
            string name = $"{callback}, {failure}, {moment}, {(extended ? "extended" : "structured")}{(tls ? " with TLS" : "")}, "
                + $"below {layer.Name} of seed {seed}";
            byte[]?[] right = await Quiet(callback, extended, tls, FailingLayer.Create(which, seed)!, name);
            var layered = new LayeredCase(callback, failure, moment, extended, tls, layer, later: count < later);
            await Name(name, layered.RunAsync(right));
            count++;
            goingOn += layered.GoesOn ? 1 : 0;
            mustGoOn = !layer.HoldsAll;
        }
        return goingOn > 0 || !mustGoOn
            ? (count, goingOn)
            : throw new InvalidOperationException($"below the filter {which} no call was left hanging while others were served");
    }

    // A cleanup that is late is no failure.
    private static async Task<byte[]?[]> Quiet(Callback callback, bool extended, bool tls, FailingLayer layer, string name)
    {
        var quiet = new LayeredCase(
            callback == Callback.ReadSparse ? callback : Callback.Cleanup, Failure.Late, Moment.AtOnce, extended, tls, layer);
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
