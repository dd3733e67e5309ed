//! The labelled table and the model's functions in a DataFusion session of your own.
//!
//!     cargo run -- run pipelines/hapt.toml
//!     cargo run --example sql

use dacpipe::Result;
use dacpipe::sql::{self, Options};
use datafusion::prelude::SessionContext;

#[tokio::main]
async fn main() -> Result<()> {
    let ctx = SessionContext::new_with_config(sql::session_config());
    sql::register(&ctx, Options::new().table("hapt", "out/hapt")).await?;

    let queries = [
        "SELECT cluster, count(*) AS n, avg(distance) AS spread FROM hapt GROUP BY cluster ORDER BY n DESC",
        "SELECT split, ari(cluster, activity), nmi(cluster, activity) FROM hapt GROUP BY split ORDER BY split",
        "SELECT h.cluster, h.activity, h.distance / c.mean_distance AS oddness
         FROM hapt h JOIN hapt_clusters c USING (cluster, model) ORDER BY oddness DESC LIMIT 5",
    ];
    for query in queries {
        println!("{query}");
        ctx.sql(query).await?.show().await?;
    }
    Ok(())
}
